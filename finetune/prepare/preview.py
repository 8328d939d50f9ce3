"""What `prepare` would make of its sources: reads the first rows and documents as it does, and writes nothing.

Whatever compares rows with each other or with eval sets is left to `prepare`: duplicates, repeated lines, splits, limits.
"""

from __future__ import annotations

import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path

from finetune.corpus.mask import MaskedRow, mask_row
from finetune.corpus.view import DropCount
from finetune.errors import HubError, InputError, OfflineError
from finetune.models.tokenizer import find_tokenizer
from finetune.prepare.documents.document_file import load_document
from finetune.prepare.documents.readers import TEXTS
from finetune.prepare.drops import Drops, sum_counts, sum_unused
from finetune.prepare.engines.local import LocalEngine
from finetune.prepare.extract import extract
from finetune.prepare.formats.files import BINARY, DataFile, Row, Rows, Unread, encoding_of
from finetune.prepare.formats.readers import read_blocks, rows_of
from finetune.prepare.inputs import Inputs, open_inputs
from finetune.prepare.read import allowed_languages
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.candidate import Candidate
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.make import make_rows
from finetune.prepare.rows.part import Part
from finetune.prepare.rows.survey import LOOKED_AT, survey
from finetune.prepare.sources.local import is_document
from finetune.prepare.sources.source import Source
from finetune.recipe import load_adapter_recipe
from finetune.records import Drop, Example, Message, Task, Unused

SHOWN_ROWS = 3  # of files that are read alike
FIRST_FILES, FIRST_DOCUMENTS = 100, 3  # of a source that are read; the documents of each format count on their own
FEWEST_ROWS = 10  # that are read of a file, if a source has many
LABEL_ROWS = 100_000  # searched for labels: about a second
UTF8 = "utf-8"

Masker = Callable[[Example], MaskedRow | None]


@dataclass(frozen=True)
class RowPreview:
    """A row; `masked` is what the model sees of it, if its tokenizer is on this machine."""

    id: str
    task: Task
    messages: tuple[Message, ...]
    tools: str | None
    rejected: tuple[Message, ...]
    masked: MaskedRow | None


@dataclass(frozen=True)
class FilesPreview:
    """Files of a source that are read alike, and what became of their first rows or documents.

    `columns` are those that are used, as NAME=COLUMN where the names differ. `read` counts the rows or documents that were
    looked at, `kept` the rows of a corpus that they give; `has_more` says that the files have more rows. `problems` are the
    first errors, one per reason.
    """

    files: tuple[str, ...]
    shape: str
    encoding: str | None
    columns: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    read: int = 0
    kept: int = 0
    has_more: bool = False
    splits: Mapping[str, int] = field(default_factory=dict)
    dropped: tuple[DropCount, ...] = ()
    unused: tuple[Unused, ...] = ()
    cleaned: Mapping[str, int] = field(default_factory=dict)
    scrubbed: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    rows: tuple[RowPreview, ...] = ()


@dataclass(frozen=True)
class SourcePreview:
    """A source: the number of its files, the files that are not read, and the others in groups that are read alike.

    `has_recipe` says that the recipe of a domain names its columns.
    """

    id: str
    uri: str
    license: str
    has_recipe: bool
    files: int
    looked_at: int
    unused: tuple[Unused, ...]
    groups: tuple[FilesPreview, ...]


@dataclass(frozen=True)
class Preview:
    """The sources as `prepare` would read them; `stops` says that it would stop at one of the problems.

    `model` is the base model whose tokenizer rendered the rows; None: no tokenizer, and a note says why.
    """

    sources: tuple[SourcePreview, ...]
    license: str
    model: str | None
    notes: tuple[str, ...]
    stops: bool


def preview(request: PrepareRequest) -> Preview:
    """Read the first rows and documents of all sources.

    Raises:
        SlmtuneError: the request or a source cannot be used. Problems of files and rows are part of the result.
    """
    inputs = open_inputs(replace(request, on_error="skip", overwrite=True, label_rows=LABEL_ROWS))
    model, mask, notes = _find_masker(request.domain)
    sources = tuple(_look_at_sources(inputs, mask))
    stops = request.on_error == "fail" and any(group.problems for source in sources for group in source.groups)
    return Preview(sources, inputs.license, model, tuple(dict.fromkeys(notes)), stops)


def _find_masker(domain: str | None) -> tuple[str | None, Masker, list[str]]:
    """The base model, the function that renders rows as it sees them, and a list for what cannot be rendered."""
    recipe = load_adapter_recipe(domain)
    notes: list[str] = []
    try:
        tokenizer = find_tokenizer(recipe.model, fetch=False)
    except (OfflineError, HubError) as error:
        return None, lambda example: None, [f"Rows are shown as messages, not as the model sees them. {error}"]

    def mask(example: Example) -> MaskedRow | None:
        try:
            return mask_row(tokenizer, example, recipe.max_length)
        except InputError as error:  # the chat template rejects the row, on which training would stop
            notes.append(str(error))
            return None

    return recipe.model, mask, notes


def _look_at_sources(inputs: Inputs, mask: Masker) -> Iterator[SourcePreview]:
    drops = Drops("skip")
    firsts = [replace(source, files=tuple(_first_files(source.files))) for source in inputs.sources]
    parts = survey(firsts, inputs.request, inputs.domain, drops)
    for source, first in zip(inputs.sources, firsts, strict=True):
        own = [part for part in parts if part.source is first]
        groups = [*_refused(first, own, drops), *_look_at_files(inputs, own, mask)]
        unread = tuple(Unused(source.id, "file", name, number) for name, number in source.unread.items())
        counts = source.recipe is not None, len(source.files), len(first.files)
        yield SourcePreview(source.id, source.uri, source.license, *counts, unread, tuple(groups))


def _first_files(files: Iterable[DataFile]) -> Iterator[DataFile]:
    """The first files of rows, and the first documents of each format."""
    counts: Counter[str] = Counter()
    for file in files:
        kind, most = (file.suffix, FIRST_DOCUMENTS) if is_document(file) else ("rows", FIRST_FILES)
        counts[kind] += 1
        if counts[kind] <= most:
            yield file


def _refused(source: Source, parts: Sequence[Part], drops: Drops) -> Iterator[FilesPreview]:
    """The files that no shape fits, or that cannot be read."""
    known = {part.file for part in parts}
    names = tuple(file.name for file in source.files if file not in known)
    if names:
        own = [drop for drop in drops.items if drop.id.startswith(f"{source.id}/")]
        problems = tuple(error for (id, _), error in drops.problems.items() if id == source.id)
        yield FilesPreview(names, "nothing", None, dropped=_count(own), problems=problems)


# --- files that are read alike ----------------------------------------------------------------------------------------


@dataclass
class _Look:
    """The first rows of one file, as far as they are known."""

    part: Part
    encoding: str | None = None
    rows: tuple[Row, ...] = ()
    has_more: bool = False
    candidates: list[Candidate] = field(default_factory=list)
    drops: Drops = field(default_factory=lambda: Drops("skip"))

    @property
    def likeness(self) -> tuple[object, ...]:
        """What files that are shown as one have in common."""
        suffix = self.part.file.suffix if self.part.shape is None else ""
        return self.part.shape_name, suffix, self.encoding, frozenset(_columns(self))


def _look_at_files(inputs: Inputs, parts: Sequence[Part], mask: Masker) -> list[FilesPreview]:
    groups: defaultdict[tuple[object, ...], list[_Look]] = defaultdict(list)
    with tempfile.TemporaryDirectory() as folder:
        languages = allowed_languages(inputs.request, inputs.domain)
        job = Job(inputs.request, tuple(parts), Path(folder), languages, scrubber=inputs.scrubber)
        for number in range(len(parts)):
            look = _look_at_file(job, number)
            groups[look.likeness].append(look)
    return [_group(looks, mask) for looks in groups.values()]


def _look_at_file(job: Job, number: int) -> _Look:
    part = job.parts[number]
    look = _Look(part)
    try:
        for content in _documents(job, look) if part.shape is None else _rows(job, look):
            look.candidates += make_rows(job, Block(0, number, content), look.drops)
    except InputError as error:
        look.drops.refuse_file(part.source, part.file, "unreadable", error)
    return look


def _documents(job: Job, look: _Look) -> Iterator[Path]:
    file = look.part.file
    folder = Path(tempfile.mkdtemp(dir=job.folder))
    for _, path in extract([look.part], folder, look.drops, LocalEngine(1)):
        if path is not None:
            look.encoding = load_document(path).encoding or (UTF8 if file.suffix in TEXTS else None)
            yield path


def _rows(job: Job, look: _Look) -> Iterator[Rows]:
    file = look.part.file
    look.encoding = None if file.suffix in BINARY else encoding_of(file) or UTF8
    most = max(LOOKED_AT // len(job.parts), FEWEST_ROWS)
    rows = chain.from_iterable(map(rows_of, read_blocks(file)))
    first = tuple(islice(rows, most))
    look.rows = tuple(row for row in first if isinstance(row, Row))
    yield first
    look.has_more = any(not isinstance(row, Unread) for row in rows)


def _columns(look: _Look) -> list[str]:
    """The columns that the rows have and their shape reads."""
    part = look.part
    if part.shape is None:
        return []
    present = {str(name).strip().lower() for row in look.rows for name in row.values}
    own = (part.shape.columns & present) - part.mapping.keys() - part.ignored
    aliased = {alias: name for alias, name in part.aliases.items() if alias in present and name not in present}
    renamed = [f"{name}={column}" for name, column in part.mapping.items()]
    renamed += [f"labels={','.join(part.indicators)}"] if part.indicators else []
    return sorted([*own, *renamed, *(f"{name}={alias}" for alias, name in aliased.items())])


def _group(looks: Sequence[_Look], mask: Masker) -> FilesPreview:
    first, drops = looks[0], [look.drops for look in looks]
    candidates = [candidate for look in looks for candidate in look.candidates]
    rows = [each.example for each in candidates]
    labels = {name for row in rows for name in (row.choices or filter(None, [row.label]))}
    problems = {key: error for each in reversed(drops) for key, error in each.problems.items()}
    return FilesPreview(
        files=tuple(look.part.file.name for look in looks),
        shape=first.part.shape_name,
        encoding=first.encoding,
        columns=tuple(_columns(first)),
        labels=tuple(sorted(labels)),
        read=sum(each.read for each in drops) + sum(first.part.shape is None and not look.drops.read for look in looks),
        kept=len(candidates),
        has_more=any(look.has_more for look in looks),
        splits=sum_counts({each.origin.split: 1} for each in candidates if each.origin.split),
        dropped=_count(drop for each in drops for drop in each.items),
        unused=tuple(sum_unused(each.unused for each in drops)),
        cleaned=sum_counts(each.cleaned for each in drops),
        scrubbed=sum_counts(each.scrubbed for each in drops),
        problems=tuple(problems.values()),
        rows=tuple(_row(each.example, mask) for each in candidates[:SHOWN_ROWS]),
    )


def _row(example: Example, mask: Masker) -> RowPreview:
    return RowPreview(example.id, example.task, example.messages, example.tools, example.rejected, mask(example))


def _count(drops: Iterable[Drop]) -> tuple[DropCount, ...]:
    counts = Counter((drop.step, drop.reason) for drop in drops)
    return tuple(DropCount(step, reason, rows) for (step, reason), rows in sorted(counts.items()))
