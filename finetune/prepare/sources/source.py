"""Opens the sources of rows: those of a recipe, local files and folders, URLs, and data sets on the Hub."""

from __future__ import annotations

import codecs
import hashlib
import logging
import posixpath
import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

from finetune.artifacts import sha256_of
from finetune.corpus.open import open_corpus
from finetune.errors import InputError
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import DataFile, suffix_of
from finetune.prepare.licenses import is_noncommercial
from finetune.prepare.request import PrepareRequest
from finetune.prepare.sources.local import NO_ENDING, count_names, find_files, is_document
from finetune.prepare.sources.remote import URI, fetch
from finetune.prepare.splits.shares import is_only_split, named_folder, named_split, rest_of
from finetune.recipe import Domain, SourceRecipe
from finetune.records import SPLIT_WORDS, SPLITS, Split
from finetune.storage.address import is_address, public_address
from finetune.storage.download import download, matched_folder

HUB = "hf://"
UNKNOWN_LICENSE = "unknown"

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Source:
    """A source on this machine: its name in the corpus, its files, and its entry in the manifest."""

    id: str
    uri: str  # hf://… or a file name without its folders
    license: str
    files: tuple[DataFile, ...]
    revision: str | None = None
    recipe: SourceRecipe | None = None
    earlier: bool = False  # an earlier corpus, only compared with
    unread: Mapping[str, int] = field(default_factory=dict)  # files that are not read, by name or ending

    @property
    def taken(self) -> set[Split]:
        """The splits that the source itself names."""
        named = {file.split for file in self.files if file.split is not None}
        return named | {"test"} if self.recipe and self.recipe.test_ids else named


def open_sources(request: PrepareRequest, domain: Domain | None) -> list[Source]:
    """Find the requested sources, downloading those on the Hub.

    Raises:
        InputError: there are no sources, a file is missing, or a licence is not accepted.
        UnknownNameError, OfflineError, HubError: see `remote.fetch`.
    """
    if request.sources and request.sample:
        raise InputError("--sample uses the bundled rows, --source other ones. Use only one of them")
    if request.sources:
        known = {source.uri: source for source in domain.recipe.sources} if domain and not request.columns else {}
        opened = [_open(known.get(uri, uri), request, domain) for uri in request.sources]
    elif domain is None:
        raise InputError("There is nothing to prepare. Pass --domain NAME, or rows of your own with --source FILE")
    else:
        opened = [_open(recipe, request, domain) for recipe in _choose_recipes(request, domain)]
    settled = iter(_settle_splits([source for source in opened if source.recipe is None], request))
    sources = _with_own_ids([next(settled) if source.recipe is None else source for source in opened])
    return sources if request.only is None else [_only_split(source, request.only) for source in sources]


def _only_split(source: Source, split: Split) -> Source:
    """The source without the files of other splits.

    Raises:
        InputError: no file is left.
    """
    files = tuple(file for file in source.files if file.split in (None, split))
    if not files:
        raise InputError(
            f"{source.uri} has no rows of the {split} split: its files name {', '.join(sorted(source.taken))}. Choose another "
            "source or split"
        )
    return replace(source, files=files)


def with_encoding(source: Source, encoding: str) -> Source:
    """The source with an encoding for all of its files that are text."""
    name = codecs.lookup(encoding).name
    return replace(source, files=tuple(replace(file, encoding=name) for file in source.files))


def open_source(uri: str, request: PrepareRequest, domain: Domain | None) -> Source:
    """One source named by the user, such as an eval set; the recipe supplies what it knows about it."""
    known = {source.uri: source for source in domain.recipe.sources} if domain else {}
    return _open(known.get(uri, uri), replace(request, accept_noncommercial=True), domain)


def open_earlier(request: PrepareRequest) -> list[Source]:
    """The earlier corpora whose rows must not be used again.

    Raises:
        ArtifactError: one of them is not a complete corpus.
    """
    return [
        Source(
            f"earlier-{number}",
            place if is_address(place) else corpus.path.name,
            UNKNOWN_LICENSE,
            tuple(DataFile(path, path.name, str(path), split) for split in SPLITS for path in corpus.files(split)),
            corpus.fingerprint,
            earlier=True,
        )
        for number, (place, corpus) in enumerate(
            zip(request.against, map(open_corpus, request.against), strict=True), 1
        )
    ]


def _choose_recipes(request: PrepareRequest, domain: Domain) -> Iterable[SourceRecipe]:
    """The sources of a recipe, without those whose licence the user has not accepted."""
    listed = domain.recipe.sample if request.sample else domain.recipe.sources
    tasks = request.tasks or [name for name, task in domain.recipe.tasks.items() if task.default]
    sources = [source for source in listed if source.id in request.include or (source.default and source.task in tasks)]
    if not sources:
        raise InputError(_nothing_listed(domain, tasks, listed))
    closed = [source for source in sources if source.noncommercial and not request.accept_noncommercial]
    if closed and len(closed) == len(sources):
        raise _license_error(closed[0].id, closed[0].license)
    for source in closed:
        log.info(
            "%s is skipped: its licence %s forbids commercial use (--accept-noncommercial).", source.id, source.license
        )
    return [source for source in sources if source not in closed]


def _nothing_listed(domain: Domain, tasks: Iterable[str], listed: Iterable[SourceRecipe]) -> str:
    others = [f"--include {source.id}" for source in listed if source.task in tasks]
    hint = f"Add sources that are off by default with {' or '.join(others)}" if others else "Choose another --task"
    return f"The domain {domain.name} has no source for {', '.join(tasks)} that is on by default. {hint}"


def _open(entry: SourceRecipe | str, request: PrepareRequest, domain: Domain | None) -> Source:
    if isinstance(entry, str):
        if entry.startswith(HUB):
            return _open_hub(entry, request, None)
        return _open_address(entry, request) if is_address(entry) else _open_local(entry, request)
    if entry.noncommercial and not request.accept_noncommercial:
        raise _license_error(entry.id, entry.license)
    if entry.is_remote:
        return _open_hub(entry.uri, request, entry)
    assert domain is not None
    listing = find_files(str(domain.folder / entry.uri))
    files = _name_splits(listing.files)
    return Source(entry.id, entry.uri, entry.license, files, recipe=entry, unread=listing.unread)


def _open_local(text: str, request: PrepareRequest) -> Source:
    text = text.removeprefix("file://")
    listing = find_files(text)
    name, license = Path(text).expanduser().absolute().name, request.license or UNKNOWN_LICENSE
    return Source(_plain_id(name), name, license, _name_splits(listing.files), unread=listing.unread)


def _open_address(url: str, request: PrepareRequest) -> Source:
    path, shown, folder = download(url), public_address(url), matched_folder(url)
    listing = find_files(str(path))
    inside = {file: file.name if path.is_dir() else file.member for file in listing.files}
    files = _name_splits(replace(file, shown=f"{folder}/{name}" if name else shown) for file, name in inside.items())
    license, revision = request.license or UNKNOWN_LICENSE, f"sha256:{_digest(path)}"
    return Source(_plain_id(path.name), shown, license, files, revision, unread=listing.unread)


def _digest(path: Path) -> str:
    """SHA-256 of a file, or of the names and digests of the files in a folder."""
    if path.is_file():
        return sha256_of(path)
    files = sorted(each for each in path.rglob("*") if each.is_file())
    lines = [f"{each.relative_to(path).as_posix()} {sha256_of(each)}\n" for each in files]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _open_hub(uri: str, request: PrepareRequest, recipe: SourceRecipe | None) -> Source:
    data = fetch(uri if request.only is None else _narrow(uri, recipe, request.only))
    license = recipe.license if recipe else request.license or data.license or UNKNOWN_LICENSE
    if recipe is None and is_noncommercial(data.license or "") and not request.accept_noncommercial:
        raise _license_error(uri, data.license or "")
    read = [file for file in data.files if not _is_left_out(file.split, recipe)]
    splits = [_hub_split(file.split, recipe) for file in read]
    if not (recipe and recipe.splits) and set(splits) == {"train"}:
        splits = [None] * len(splits)  # a single split does not count as one
    files = tuple(
        DataFile(file.path, file.name, f"{uri}/{file.name}", split) for file, split in zip(read, splits, strict=True)
    )
    name = recipe.id if recipe else _plain_id(uri.removeprefix(f"{HUB}datasets/").split("@")[0].split("/")[-1])
    unread = count_names((suffix_of(other) or NO_ENDING, other) for other in data.others) if recipe is None else {}
    return Source(name, uri, license, files, data.revision, recipe, unread=unread)


def _narrow(uri: str, recipe: SourceRecipe | None, split: Split) -> str:
    """The address of the one split of a data set that becomes `split`, so that nothing else is downloaded."""
    names = [name for name, becomes in (recipe.splits if recipe else {}).items() if becomes == split]
    match = URI.fullmatch(uri)
    if len(names) != 1 or match is None or match["split"]:
        return uri
    return f"{uri}{'' if match['config'] else ':'}:{names[0]}"


def _listed_name(name: str | None, recipe: SourceRecipe) -> str:
    return (name if name in recipe.splits else named_split(name or "")) or ""


def _is_left_out(name: str | None, recipe: SourceRecipe | None) -> bool:
    return recipe is not None and recipe.splits.get(_listed_name(name, recipe), "open") is None


def _hub_split(name: str | None, recipe: SourceRecipe | None) -> Split | None:
    """The split of the corpus for a split on the Hub; None if the recipe does not list it."""
    if recipe and recipe.splits:
        return recipe.splits.get(_listed_name(name, recipe))
    return named_split(name or "")


# --- splits that files name -------------------------------------------------------------------------------------------


def _name_splits(files: Iterable[DataFile]) -> tuple[DataFile, ...]:
    """The files with the splits that their names imply; documents have titles, so only their folders imply one."""
    return tuple(
        replace(file, split=(named_folder if is_document(file) else named_split)(_place(file))) for file in files
    )


def _place(file: DataFile) -> str:
    """The name of a file, below the folder of its source if that names a split."""
    on_disk = file.name if file.member is None else file.name.removesuffix(f"/{file.member}")
    root = file.path.absolute().parents[len(PurePosixPath(on_disk).parts) - 1].name
    name = inner_name(Path(), file.name)
    return f"{root}/{name}" if root.lower() in SPLIT_WORDS else name


def _settle_splits(sources: Sequence[Source], request: PrepareRequest) -> list[Source]:
    """The sources with the splits that count: an only split is none, and `crash-test.csv` beside `notes.csv` is no test.

    If the user requests shares, `--split-ratio` divides the train split among the unnamed ones.

    Raises:
        InputError: all files name held-out splits, so that nothing would be left to train on.
    """
    files = [file for source in sources for file in source.files]
    with_documents = any(is_document(file) and file.split == "train" for file in files)
    splits = {file.split if with_documents or not is_document(file) else None for file in files}
    if splits == {"validation", "test"} and request.split_ratio is None and request.only is None:
        raise InputError(
            f"All files name a held-out split ({', '.join(file.shown for file in files[:3])}): nothing is left to train on. "
            "Add rows for training with --source, or pass --split-ratio 0/0.5/0.5 for a corpus without them"
        )
    siblings: defaultdict[str, set[Split | None]] = defaultdict(set)
    for file in files:
        siblings[rest_of(_place(file))].add(file.split)

    def counts(source: Source, file: DataFile) -> bool:
        if len(splits) == 1 or (file.split == "train" and request.split_ratio is not None):
            return False
        if is_document(file):
            return with_documents
        place = _place(file)
        is_clear = len(splits - {None}) > 1 and " " not in posixpath.basename(place)
        return is_clear or source.uri.startswith(HUB) or is_only_split(place) or len(siblings[rest_of(place)]) > 1

    return [
        replace(
            source, files=tuple(file if counts(source, file) else replace(file, split=None) for file in source.files)
        )
        for source in sources
    ]


def _license_error(name: str, license: str) -> InputError:
    return InputError(
        f"The licence of {name} ({license}) forbids commercial use. Read it, then accept it with --accept-noncommercial"
    )


def _plain_id(name: str) -> str:
    """A short name for a source: the name of the file without its extension."""
    plain = inner_name(Path(name), None)
    stem = plain.removesuffix(suffix_of(plain)) or plain
    return re.sub(r"[^\w-]+", "-", stem.split(":")[0]).strip("-") or "source"


def _with_own_ids(sources: list[Source]) -> list[Source]:
    """Number sources with the same name, so that row ids stay unique."""
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
