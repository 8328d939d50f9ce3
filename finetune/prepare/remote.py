"""Data sets on the Hugging Face Hub: from `hf://datasets/ID[@revision][:config]` to local files at one commit."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from finetune.environment import is_offline
from finetune.errors import HubError, InputError, OfflineError, UnknownNameError
from finetune.prepare.files import READERS
from finetune.prepare.split import named_split

T = TypeVar("T")

URI = re.compile(r"hf://datasets/(?P<repo>[\w.-]+(?:/[\w.-]+)?)(?:@(?P<revision>[^:]+))?(?::(?P<config>.+))?")
SHARD = re.compile(r"-\d{5}-of-(\d{5})\.\w+$")
NO_DATA = {"dataset_infos.json", "dataset_info.json", "state.json", "manifest.json", "drops.jsonl"}
TRIES, PAUSE = 4, 1.0  # of a request that the Hub could not serve just then; seconds, doubled each time

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class HubFile:
    """A downloaded file, its path in the repository and the name of its split there, if it has one."""

    path: Path
    name: str
    split: str | None


@dataclass(frozen=True)
class HubData:
    """The files of one configuration of a data set, the commit they are of, and the licence that the card states."""

    files: tuple[HubFile, ...]
    revision: str
    license: str | None


def fetch(uri: str) -> HubData:
    """Download the Parquet, CSV or JSON files of a data set; what is cached is not fetched again. No code is run.

    Raises:
        UnknownNameError: there is no such data set, revision or configuration.
        OfflineError: not cached, and the network is forbidden or out of reach.
        InputError: the URI is malformed, or the repository has no files that slmtune reads.
        HubError: the Hub refused.
    """
    match = URI.fullmatch(uri)
    if match is None:
        raise InputError(
            f"{uri} is no data set on the Hub. Write hf://datasets/ID, hf://datasets/ID@REVISION or …:CONFIG"
        )
    repo, revision, config = match["repo"], match["revision"], match["config"]
    folder, names = _snapshot(repo, revision)
    card = _card(folder, names)
    chosen = _configured(repo, names, card, config) or _by_layout(repo, names, config)
    folder = _download(repo, revision, sorted(chosen), folder)
    files = tuple(HubFile(folder / name, name, split) for name, split in sorted(chosen.items()))
    return HubData(files, folder.name, _license(card))


def _snapshot(repo: str, revision: str | None) -> tuple[Path, list[str]]:
    """The folder of a snapshot with its card, and the names of the repository's files (offline: the cached ones)."""
    from huggingface_hub import HfApi, snapshot_download

    if is_offline():
        return _cached(repo, revision, "the network is forbidden (--offline)")
    try:
        info = _asked(repo, lambda: HfApi().dataset_info(repo, revision=revision))
    except OfflineError:
        log.info("The Hub cannot be reached; looking for %s in the cache.", repo)
        return _cached(repo, revision, "the Hub cannot be reached")
    names = [file.rfilename for file in info.siblings or []]
    folder = _asked(
        repo, lambda: snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=["README.md"])
    )
    return Path(folder), names


def _cached(repo: str, revision: str | None, why: str) -> tuple[Path, list[str]]:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = Path(snapshot_download(repo, repo_type="dataset", revision=revision, local_files_only=True))
    except (LocalEntryNotFoundError, FileNotFoundError):
        raise OfflineError(_not_cached(repo, why)) from None
    return folder, sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _download(repo: str, revision: str | None, names: Sequence[str], folder: Path) -> Path:
    from huggingface_hub import snapshot_download

    for name in names:
        shards = SHARD.search(name)
        if shards and sum(name[: shards.start()] == other[: shards.start()] for other in names) < int(shards[1]):
            raise OfflineError(_not_cached(repo, f"only a part of {name[: shards.start()]} is there"))
    if all((folder / name).is_file() for name in names):
        return folder
    log.info("Downloading %s from the Hub.", repo)
    patterns = [re.sub(r"([*?\[])", r"[\1]", name) for name in names]
    return Path(
        _asked(repo, lambda: snapshot_download(repo, repo_type="dataset", revision=revision, allow_patterns=patterns))
    )


def _configured(repo: str, names: Sequence[str], card: dict[str, Any], config: str | None) -> dict[str, str | None]:
    """File -> split, as the card's `configs` say; empty where the card says nothing."""
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
        found = [name for name in names if fnmatchcase(name, pattern) and _is_data(name)]
        if not found:
            raise _no_files(
                repo, f"its card names {pattern}, which is missing or in a format that slmtune does not read"
            )
        chosen |= dict.fromkeys(found, split)
    return chosen


def _patterns(data_files: object) -> list[tuple[str | None, str]]:
    entries = data_files if isinstance(data_files, list) else [data_files]
    pairs: list[tuple[str | None, str]] = []
    for entry in entries:
        split, paths = (entry.get("split"), entry.get("path")) if isinstance(entry, dict) else (None, entry)
        pairs += [(split, str(path)) for path in (paths if isinstance(paths, list) else [paths])]
    return pairs


def _by_layout(repo: str, names: Sequence[str], config: str | None) -> dict[str, str | None]:
    """Data files by folder: those of `CONFIG/…`, or all of an only configuration; their names tell the split."""
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
        f"{repo} has several configurations: {', '.join(sorted(configs))}. Choose one: hf://datasets/{repo}:CONFIG"
    )


def _no_files(repo: str, why: str) -> InputError:
    if is_offline():
        return OfflineError(_not_cached(repo, "the network is forbidden (--offline)"))
    return InputError(
        f"{repo} cannot be read: {why}. slmtune runs no loading scripts; the Hub's converted files may be there: "
        f"hf://datasets/{repo}@refs/convert/parquet:CONFIG"
    )


def _is_data(name: str) -> bool:
    file = name.rsplit("/", 1)[-1]
    return Path(file).suffix.lower() in READERS and file not in NO_DATA and not name.startswith(".")


def _card(folder: Path, names: Sequence[str]) -> dict[str, Any]:
    from huggingface_hub import metadata_load

    if "README.md" not in names or not (folder / "README.md").is_file():
        return {}
    try:
        return metadata_load(folder / "README.md") or {}
    except ValueError:
        return {}  # a card without readable metadata says nothing


def _license(card: dict[str, Any]) -> str | None:
    license = card.get("license")
    if isinstance(license, list):
        return ", ".join(map(str, license)) or None
    return license if isinstance(license, str) else None


def _asked(repo: str, request: Callable[[], T]) -> T:
    """The Hub's answer; busy answers are asked for again, refusals become errors that say what to do."""
    import httpx2
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        OfflineModeIsEnabled,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    for attempt in range(TRIES):
        try:
            return request()
        except GatedRepoError:
            page = f"https://huggingface.co/datasets/{repo}"
            raise HubError(f"{repo} is gated: accept its terms at {page}, then log in with: hf auth login") from None
        except RevisionNotFoundError:
            raise UnknownNameError("such revision of", repo, [], "Look at its branches and tags on the Hub.") from None
        except (RepositoryNotFoundError, HFValidationError):
            raise UnknownNameError(
                "data set on the Hub called", repo, [], "Private ones need a login: hf auth login"
            ) from None
        except (LocalEntryNotFoundError, OfflineModeIsEnabled, httpx2.TransportError, ConnectionError):
            raise OfflineError(_not_cached(repo, "the Hub cannot be reached")) from None
        except HfHubHTTPError as error:
            status = error.response.status_code if error.response is not None else 0
            if attempt + 1 == TRIES or not (status == 429 or status >= 500):
                raise HubError(f"The Hub answered {status or 'nothing'} for {repo}. Try again later") from None
            time.sleep(PAUSE * 2**attempt)
    raise AssertionError("the last try returns or raises")


def _not_cached(repo: str, why: str) -> str:
    return f"The data set {repo} is not in the cache, and {why}. Connect once, or give --source a local file"
