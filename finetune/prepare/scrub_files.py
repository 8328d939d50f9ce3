"""Files → the same files without personal data: `slmtune scrub`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from finetune.artifacts import make_folder, write_aside
from finetune.errors import InputError, OutputExistsError
from finetune.prepare.formats.files import DataFile
from finetune.prepare.scrub_rows import FileRow, Write, check_format, output_name, read_file, writing_file
from finetune.prepare.sources.local import find_files
from finetune.recipe import load_domain
from finetune.recipe.option_fields import check
from finetune.recipe.options import ScrubOptions
from finetune.recipe.scrub import EVERYTHING, Policy
from finetune.scrub import Scrubber, Span, make_rules

BLOCK = 64  # rows whose texts a tagger reads together
SHORT = 200  # characters of a value that the name of its column may explain, as in phone: 785 8949
MOST_EXPLAINED = 500


@dataclass(frozen=True)
class ScrubRequest(ScrubOptions):
    """Which files to scrub, and the folder for the results; without one, the files are only searched."""

    files: tuple[str, ...]
    out: Path | None = None
    domain: str | None = None
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class FoundText:
    """A text of a row, the column that holds it (empty: none), and the personal data in it."""

    column: str
    text: str
    spans: tuple[Span, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a part of a text counts as personal data; for the terminal alone, because it repeats the text."""

    where: str
    entity: str
    text: str
    recogniser: str
    score: float
    reason: str


@dataclass(frozen=True)
class ScrubbedFile:
    """A file, what was written of it, its rows or paragraphs, and how many had personal data or were dropped for it."""

    file: str
    out: Path | None
    rows: int
    changed: int
    dropped: int


@dataclass(frozen=True)
class ScrubResult:
    """What was found, by kind; never a value. `kinds` are those that were searched for."""

    policy: Policy
    files: tuple[ScrubbedFile, ...]
    found: Mapping[str, int]
    kinds: tuple[str, ...]


def open_files(request: ScrubRequest) -> list[DataFile]:
    """The files of a request, in formats that can be written again.

    Raises:
        InputError: a file is missing, in another format, or two would be written to one.
    """
    files = [file for name in request.files for file in find_files(name).files]
    for file in files:
        check_format(file)
    names = Counter(map(output_name, files))
    twice = [name for name, count in names.items() if count > 1]
    if request.out is not None and twice:
        raise InputError(
            f"{names[twice[0]]} files are called {twice[0]}, and would be written to one. Scrub them one by one"
        )
    return files


def make_scrubber(request: ScrubRequest) -> Scrubber:
    """The scrubber of a request.

    Raises:
        SlmtuneError: a flag, the domain or its rules cannot be used.
    """
    check(request)
    domain = load_domain(request.domain) if request.domain is not None else None
    return Scrubber(
        make_rules(
            domain,
            policy=request.policy,
            find=request.find,
            otherwise=EVERYTHING,
            tagger=request.tagger,
            seed=request.seed,
        )
    )


def scrub_files(request: ScrubRequest, explanations: list[Explanation] | None = None) -> ScrubResult:
    """Search files for personal data and, if there is an output folder, write them without it.

    Args:
        request: the files, and what to do.
        explanations: takes why each span counts, up to `MOST_EXPLAINED`.

    Raises:
        SlmtuneError: a flag, a file or a row cannot be used.
    """
    scrubber, files = make_scrubber(request), open_files(request)
    outs = [None if request.out is None else request.out / output_name(file) for file in files]
    for out in outs:
        if out is not None and out.exists() and not request.overwrite:
            raise OutputExistsError(out)
    if request.out is not None:
        make_folder(request.out)
    found: Counter[str] = Counter()
    done = []
    for file, out in zip(files, outs, strict=True):
        with _writer(file, out) as write:
            rows = changed = dropped = 0
            for row, texts in find_in_rows(scrubber, read_file(file)):
                rows += 1
                spans = [span for each in texts for span in each.spans]
                found.update(span.entity for span in spans)
                changed += bool(spans)
                if spans and scrubber.rules.policy == "drop":
                    dropped += 1
                else:
                    write(_replaced(scrubber, row, texts, document_of(file, row, request.group_by)))
                if explanations is not None and spans and len(explanations) < MOST_EXPLAINED:
                    explanations += _explain(f"{file.shown}:{row.line}", texts)
        done.append(ScrubbedFile(file.shown, out, rows, changed, dropped))
    return ScrubResult(scrubber.rules.policy, tuple(done), dict(sorted(found.items())), scrubber.kinds)


@contextmanager
def _writer(file: DataFile, out: Path | None) -> Iterator[Write]:
    if out is None:
        yield lambda value: None
        return
    with write_aside(out) as staging, writing_file(file, staging) as write:
        yield write


def find_in_rows(scrubber: Scrubber, rows: Iterable[FileRow]) -> Iterator[tuple[FileRow, list[FoundText]]]:
    """Each row with its texts and what is found in them.

    A short value is searched together with the name of its column: in a table, it is that name that says what a number is.
    """
    remaining = iter(rows)
    while block := list(islice(remaining, BLOCK)):
        texts = [list(_texts(row.value)) for row in block]
        named = [(_prefix(column, text), text) for each in texts for column, text in each]
        found = iter(scrubber.find_all([prefix + text for prefix, text in named]))
        prefixes = iter(prefix for prefix, _ in named)
        for row, each in zip(block, texts, strict=True):
            yield row, [FoundText(column, text, _moved(next(found), len(next(prefixes)))) for column, text in each]


def _texts(value: Any, column: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a value, each with the column or key that holds it."""
    match value:
        case str():
            yield column, value
        case Mapping():
            for name, each in value.items():
                yield from _texts(each, str(name))
        case list() | tuple():
            for each in value:
                yield from _texts(each, column)


def _prefix(column: str, text: str) -> str:
    return f"{column.replace('_', ' ')}: " if column and len(text) <= SHORT else ""


def _moved(spans: Sequence[Span], by: int) -> tuple[Span, ...]:
    """The spans in the text behind a prefix; those in the prefix itself are not personal data."""
    return tuple(
        Span(each.entity, max(each.start - by, 0), each.end - by, each.score, each.recogniser, each.reason)
        for each in spans
        if each.end > by
    )


def document_of(file: DataFile, row: FileRow, group_by: str | None) -> str:
    """What surrogates of a row are consistent within: rows of one group, the paragraphs of a text, else the row."""
    if isinstance(row.value, str):
        return file.name
    group = row.value.get(group_by) if group_by is not None else None
    return f"{file.name}:{row.line}" if group is None else str(group)


def _replaced(scrubber: Scrubber, row: FileRow, texts: Sequence[FoundText], document: str) -> Any:
    """The value of a row with its personal data replaced."""
    if not any(each.spans for each in texts):
        return row.value
    return _with_texts(row.value, iter([scrubber.replace(each.text, each.spans, document) for each in texts]))


def _with_texts(value: Any, texts: Iterator[str]) -> Any:
    match value:
        case str():
            return next(texts)
        case Mapping():
            return {name: _with_texts(each, texts) for name, each in value.items()}
        case list() | tuple():
            return [_with_texts(each, texts) for each in value]
    return value


def _explain(where: str, texts: Sequence[FoundText]) -> Iterator[Explanation]:
    for each in texts:
        for span in each.spans:
            place = f"{where} {each.column}".rstrip()
            yield Explanation(
                place, span.entity, each.text[span.start : span.end], span.recogniser, span.score, span.reason
            )
