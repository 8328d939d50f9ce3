"""Downloads data sets from the Hugging Face Hub: `hf://datasets/ID[@revision][:config][:split]` → files of one commit."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from finetune.errors import InputError, SlmtuneError, UnknownNameError
from finetune.hub.settings import is_offline
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import suffix_of
from finetune.prepare.formats.readers import READERS
from finetune.prepare.splits.shares import named_split

URI = re.compile(
    r"hf://datasets/(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:]+))?(?::(?P<config>[^:]*))?(?::(?P<split>[^:]+))?"
)
# What data sets and corpora have beside their rows.
NO_DATA = {
    "dataset_infos.json",
    "dataset_info.json",
    "dataset_dict.json",
    "state.json",
    "manifest.json",
    "drops.jsonl",
    "clusters.jsonl",
    "contamination.jsonl",
    "corpus.html",
}
INSTEAD = "Connect to the network once, or give a local file instead"


@dataclass(frozen=True)
class HubFile:
    """A downloaded file, its path in the repository, and the name of its split there, if any."""

    path: Path
    name: str
    split: str | None


@dataclass(frozen=True)
class HubData:
    """The files of one configuration of a data set, their commit, the licence stated on the card, and other files."""

    files: tuple[HubFile, ...]
    revision: str
    license: str | None
    others: tuple[str, ...]  # files of the repository in formats that are not read as rows


def fetch(uri: str) -> HubData:
    """Download the Parquet, CSV or JSON files of a data set, except cached ones. No code is run.

    Raises:
        UnknownNameError: there is no such data set, revision or configuration.
        OfflineError: not cached, and the network is forbidden or cannot be reached.
        InputError: the URI is malformed, or the repository has no files that slmtune can read.
        HubError: the Hub refused.
    """
    match = URI.fullmatch(uri)
    if match is None:
        raise InputError(
            f"{uri} is not a data set on the Hub. Write hf://datasets/ID[@REVISION][:CONFIG][:SPLIT]; parts in brackets are "
            "optional"
        )
    repo, config, split = match["repo"], match["config"] or None, match["split"]
    folder = _snapshot(repo, match["revision"], ["README.md"])
    names = _file_names(repo, folder.name)
    card = _card(folder)
    chosen = _chosen(repo, names, card, config, split)
    folder = _snapshot(repo, folder.name, [re.sub(r"([*?\[])", r"[\1]", name) for name in chosen])
    files = tuple(HubFile(folder / name, name, split) for name, split in sorted(chosen.items()))
    others = tuple(sorted(name for name in names if not _is_data(name) and not name.startswith((".", "README.md"))))
    return HubData(files, folder.name, _license(card) or _main_license(repo), others)


def _chosen(
    repo: str, names: Sequence[str], card: dict[str, Any], config: str | None, split: str | None
) -> dict[str, str | None]:
    """File -> split; a last part that is not a configuration but a split counts as a split."""
    try:
        files = _configured(repo, names, card, config) or _by_layout(repo, names, config)
    except UnknownNameError:
        if config is None or split is not None or named_split(config) is None:
            raise
        split = config
        files = _configured(repo, names, card, None) or _by_layout(repo, names, None)
    if split is None:
        return files
    chosen = {name: own for name, own in files.items() if own == split or named_split(own or "") == split}
    if not chosen:
        raise UnknownNameError(f"split of {repo} called", split, sorted({own for own in files.values() if own}))
    return chosen


def _snapshot(repo: str, revision: str | None, patterns: Sequence[str]) -> Path:
    """The folder of a snapshot, named after its commit, with the files that match; cached files are used."""
    from huggingface_hub import snapshot_download

    from finetune.hub.client import DATA_SET, explain_errors

    with explain_errors(repo, what=DATA_SET, instead=INSTEAD):
        return Path(
            snapshot_download(
                repo,
                repo_type="dataset",
                revision=revision,
                allow_patterns=list(patterns),
                local_files_only=is_offline(),
            )
        )


def _file_names(repo: str, revision: str) -> list[str]:
    """All files of a repository, downloaded or not, as of the last request to the Hub."""
    from huggingface_hub import get_cached_repo_tree
    from huggingface_hub.errors import CachedRepoTreeNotFoundError

    from finetune.hub.client import not_cached

    try:
        return [file.path for file in get_cached_repo_tree(repo, repo_type="dataset", revision=revision)]
    except CachedRepoTreeNotFoundError:
        raise not_cached(repo, INSTEAD) from None


def _configured(repo: str, names: Sequence[str], card: dict[str, Any], config: str | None) -> dict[str, str | None]:
    """File -> split, from the `configs` of the card; empty if the card has none."""
    listed = [entry for entry in card.get("configs") or [] if isinstance(entry, dict) and entry.get("data_files")]
    if not listed:
        return {}
    known = {str(entry.get("config_name", "default")): entry for entry in listed}
    if config is None:
        default = next((name for name, entry in known.items() if entry.get("default")), None)
        config = default or ("default" if "default" in known else next(iter(known)) if len(known) == 1 else None)
    if config is None:
        raise _several(repo, known)
    if config not in known:
        raise UnknownNameError(f"configuration of {repo} called", config, known)
    chosen: dict[str, str | None] = {}
    for split, pattern in _patterns(known[config]["data_files"]):
        matches = [name for name in names if fnmatchcase(name, pattern) and _is_data(name)]
        if not matches:
            raise _no_files(
                repo, f"its card lists {pattern}, which is missing or in a format that slmtune does not read"
            )
        chosen |= dict.fromkeys(matches, split)
    return chosen


def _patterns(data_files: object) -> list[tuple[str | None, str]]:
    entries = data_files if isinstance(data_files, list) else [data_files]
    pairs: list[tuple[str | None, str]] = []
    for entry in entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, entry)
        pairs += [(split, str(path)) for path in (paths if isinstance(paths, list) else [paths])]
    return pairs


def _by_layout(repo: str, names: Sequence[str], config: str | None) -> dict[str, str | None]:
    """Data files by folder: those in `CONFIG/…`, or all files of a single configuration; their names give the split."""
    data = [name for name in names if _is_data(name)]
    if not data:
        raise _no_files(repo, "it has no Parquet, CSV or JSON files")
    folders = {name.split("/")[0] for name in data if "/" in name}
    configs = {folder for folder in folders if folder != "data" and named_split(folder) is None}
    if config is not None and config not in folders:
        raise UnknownNameError(f"configuration of {repo} called", config, configs)
    if config is None and len(configs) > 1:
        raise _several(repo, configs)
    chosen = [name for name in data if config is None or name.startswith(f"{config}/")]
    return {name: name.removeprefix(f"{config}/") for name in chosen}


def _several(repo: str, configs: Collection[str]) -> InputError:
    return InputError(
        f"{repo} has several configurations: {', '.join(sorted(configs))}. Add one of them to the URI: …:CONFIG"
    )


def _no_files(repo: str, why: str) -> InputError:
    return InputError(
        f"{repo} cannot be read: {why}. slmtune runs no loading scripts; the Hub's converted files may be there: "
        f"hf://datasets/{repo}@refs/convert/parquet:CONFIG"
    )


def _is_data(name: str) -> bool:
    file = name.rsplit("/", 1)[-1]
    ending = suffix_of(inner_name(Path(file), None))
    return ending in READERS and file not in NO_DATA and not name.startswith(".")


def _card(folder: Path) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    if not (folder / "README.md").is_file():
        return {}
    try:
        return metadata_load(folder / "README.md") or {}
    except ValueError:
        return {}  # no readable metadata


def _license(card: dict[str, Any]) -> str | None:
    license = card.get("license")
    if isinstance(license, list):
        return ", ".join(map(str, license)) or None
    return license if isinstance(license, str) else None


def _main_license(repo: str) -> str | None:
    """The licence stated on the main branch: branches of converted files have no card."""
    try:
        return _license(_card(_snapshot(repo, None, ["README.md"])))
    except SlmtuneError:
        return None
