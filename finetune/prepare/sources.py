"""Where rows come from: the sources of a recipe, local files and folders, and data sets on the Hub."""

from __future__ import annotations

import difflib
import glob
import logging
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from finetune.errors import InputError
from finetune.prepare.files import READERS, DataFile
from finetune.prepare.remote import NO_DATA, fetch
from finetune.prepare.request import PrepareRequest
from finetune.prepare.split import WORDS, named_split
from finetune.recipe import Domain, SourceRecipe
from finetune.records import Split

HUB = "hf://"
UNKNOWN_LICENSE = "unknown"
NONCOMMERCIAL = re.compile(r"(?:^|[-_ ])nc(?:[-_ ]|$)|non-?commercial", re.I)

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A source that is on this machine: its name in the corpus, its files, and what the manifest says of it."""

    id: str
    uri: str  # hf://… or a file name without its folders
    license: str
    files: tuple[DataFile, ...]
    revision: str | None = None
    recipe: SourceRecipe | None = None

    @property
    def taken(self) -> set[Split]:
        """The splits that the source itself names."""
        named = {file.split for file in self.files if file.split is not None}
        return named | {"test"} if self.recipe and self.recipe.test_ids else named


def open_sources(request: PrepareRequest, domain: Domain | None) -> list[Source]:
    """Find (and for the Hub: download) what the request asks for.

    Raises:
        InputError: nothing is asked for, a file is missing, or a licence is not accepted.
        UnknownNameError, OfflineError, HubError: see `remote.fetch`.
    """
    if request.sources and request.sample:
        raise InputError("--sample stands for the bundled rows and --source for others. Give one of the two")
    if request.sources:
        known = {source.uri: source for source in domain.recipe.sources} if domain and not request.columns else {}
        found = [_open(known.get(uri, uri), request, domain) for uri in request.sources]
    elif domain is None:
        raise InputError("There is nothing to prepare. Give --domain NAME, or your own rows with --source FILE")
    else:
        found = [_open(recipe, request, domain) for recipe in _wanted(request, domain)]
    return _with_own_ids(found)


def _wanted(request: PrepareRequest, domain: Domain) -> Iterable[SourceRecipe]:
    """The sources of a recipe, without those whose licence the user has not accepted."""
    listed = domain.recipe.sample if request.sample else domain.recipe.sources
    sources = [source for source in listed if not request.tasks or source.task in request.tasks]
    closed = [source for source in sources if source.noncommercial and not request.accept_noncommercial]
    if closed and len(closed) == len(sources):
        raise _not_accepted(closed[0].id, closed[0].license)
    for source in closed:
        log.info(
            "%s is left out: its licence %s forbids commercial use (--accept-noncommercial).", source.id, source.license
        )
    return [source for source in sources if source not in closed]


def _open(wanted: SourceRecipe | str, request: PrepareRequest, domain: Domain | None) -> Source:
    if isinstance(wanted, str):
        return _open_hub(wanted, request, None) if wanted.startswith(HUB) else _open_local(wanted, request)
    if wanted.noncommercial and not request.accept_noncommercial:
        raise _not_accepted(wanted.id, wanted.license)
    if wanted.is_remote:
        return _open_hub(wanted.uri, request, wanted)
    assert domain is not None
    files = _local_files(str(domain.folder / wanted.uri))
    return Source(wanted.id, wanted.uri, wanted.license, _place(files, wanted, request), recipe=wanted)


def _open_local(text: str, request: PrepareRequest) -> Source:
    files = _local_files(text)
    name = Path(text).expanduser().absolute().name
    return Source(_plain_id(name), name, request.license or UNKNOWN_LICENSE, _place(files, None, request))


def _open_hub(uri: str, request: PrepareRequest, recipe: SourceRecipe | None) -> Source:
    data = fetch(uri)
    license = recipe.license if recipe else request.license or data.license or UNKNOWN_LICENSE
    if recipe is None and NONCOMMERCIAL.search(data.license or "") and not request.accept_noncommercial:
        raise _not_accepted(uri, data.license or "")
    splits = [_hub_split(file.split, recipe) for file in data.files]
    if not (recipe and recipe.splits) and set(splits) == {"train"}:
        splits = [None] * len(splits)  # an only split is no split
    files = [
        DataFile(file.path, file.name, f"{uri}/{file.name}", split)
        for file, split in zip(data.files, splits, strict=True)
    ]
    name = recipe.id if recipe else _plain_id(uri.removeprefix(f"{HUB}datasets/").split("@")[0].split("/")[-1])
    return Source(name, uri, license, _place(files, recipe, request), data.revision, recipe)


def _hub_split(name: str | None, recipe: SourceRecipe | None) -> Split | None:
    """The corpus's split for a split of the Hub; one that a recipe does not list is open."""
    if recipe and recipe.splits:
        listed = name if name in recipe.splits else named_split(name or "")
        return recipe.splits.get(listed or "")
    return named_split(name or "")


def _place(files: list[DataFile], recipe: SourceRecipe | None, request: PrepareRequest) -> tuple[DataFile, ...]:
    """Open up the train split where the user asks for shares: `--split-ratio` divides it among the unnamed splits."""
    if request.split_ratio is None or recipe is not None:
        return tuple(files)
    return tuple(replace(file, split=None) if file.split == "train" else file for file in files)


def _local_files(text: str) -> list[DataFile]:
    """The readable files that a path, a folder or a pattern stands for."""
    path = Path(text).expanduser()
    if path.is_dir():
        found = [file for file in sorted(path.rglob("*")) if _is_data(file, path)]
        root = path
        if not found:
            raise InputError(f"{text} has no files that slmtune reads. It reads {', '.join(READERS)}")
    elif path.exists():
        if path.suffix.lower() not in READERS:
            raise InputError(f"{text} is in a format that slmtune does not read. It reads {', '.join(READERS)}")
        found, root = [path], path.parent
    else:
        found = [Path(name) for name in sorted(glob.glob(str(path))) if _is_data(Path(name), Path(name).parent)]
        root = path.parent
        if not found:
            raise _missing(text)
    folder = f"{root.name}/" if path.is_dir() and root.name.lower() in WORDS else ""
    return [_data_file(file, root, folder) for file in found]


def _data_file(file: Path, root: Path, folder: str) -> DataFile:
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    return DataFile(file, name, str(file), named_split(f"{folder}{name}"))


def _is_data(file: Path, root: Path) -> bool:
    hidden = any(part.startswith(".") for part in file.relative_to(root).parts)
    return file.is_file() and file.suffix.lower() in READERS and file.name not in NO_DATA and not hidden


def _missing(text: str) -> InputError:
    folder = Path(text).expanduser().absolute().parent
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    near = difflib.get_close_matches(Path(text).name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        hint += f" A data set on the Hub is written hf://datasets/{text}"
    return InputError(f"There is no file or folder {text}.{hint or ' Check the path'}")


def _not_accepted(name: str, license: str) -> InputError:
    return InputError(
        f"The licence of {name} ({license}) forbids commercial use. Read it, then accept it with --accept-noncommercial"
    )


def _plain_id(name: str) -> str:
    """A short name for a source: the file's name without its ending."""
    stem = name.rsplit(".", 1)[0] if Path(name).suffix.lower() in READERS else name
    return re.sub(r"[^\w-]+", "-", stem.split(":")[0]).strip("-") or "source"


def _with_own_ids(sources: list[Source]) -> list[Source]:
    """Number the sources whose names are alike, so that row ids stay apart."""
    names: list[str] = []
    for source in sources:
        names.append(_free(source.id, names))
    return [replace(source, id=name) for source, name in zip(sources, names, strict=True)]


def _free(name: str, taken: Collection[str]) -> str:
    number = 2
    free = name
    while free in taken:
        free, number = f"{name}-{number}", number + 1
    return free
