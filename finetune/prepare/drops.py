"""Collects the rows and files that are dropped, each with its reason, what is not used, and other counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal, TypeVar

from finetune.errors import InputError, RecordError, Unusable
from finetune.prepare.formats.files import DataFile
from finetune.prepare.sources.source import Source
from finetune.records import Drop, Unused, UnusedKind

K = TypeVar("K", str, tuple[str, UnusedKind, str])
MOST_NAMES, NAME_LENGTH = 200, 80  # names of unused things that are listed per source and kind, and their characters


@dataclass
class Drops:
    """What one pass drops and counts; the results of several blocks add up."""

    on_error: Literal["fail", "skip"]
    items: list[Drop] = field(default_factory=list)
    read: int = 0
    unused: Counter[tuple[str, UnusedKind, str]] = field(default_factory=Counter)  # by source, kind and name
    encodings: Counter[tuple[str, str]] = field(default_factory=Counter)  # files that are not UTF-8, by source and name
    scrubbed: Counter[str] = field(default_factory=Counter)  # by kind of identifier
    cleaned: Counter[str] = field(default_factory=Counter)  # rows by what cleaning changed in them
    test_ids: set[str] = field(default_factory=set)  # ids found, of test sets inside another split
    problems: dict[tuple[str, str], str] = field(default_factory=dict)  # the first error, by source and reason

    def refuse(self, source: Source, file: DataFile, problem: Unusable, line: int | None = None) -> None:
        """Drop a row that cannot be used (without `line`: a whole document), or stop at it.

        Raises:
            RecordError: `--on-error` is `fail`.
        """
        expected = problem.reason == "no_answer" and source.recipe is not None and source.recipe.drop_unanswered
        if not expected:
            error = RecordError(file.shown if line is None else f"{file.shown}:{line}", str(problem))
            if self.on_error == "fail":
                raise error
            self.problems.setdefault((source.id, problem.reason), str(error))
        name = file_id(source, file) if line is None else row_id(source, file, line)
        self.items.append(Drop(name, "read", problem.reason))

    def refuse_file(self, source: Source, file: DataFile, reason: str, error: InputError) -> None:
        """Drop a file that cannot be used, or stop at it.

        Raises:
            InputError: `error`, if `--on-error` is `fail`.
        """
        if self.on_error == "fail":
            raise error
        self.problems.setdefault((source.id, reason), str(error))
        self.items.append(Drop(file_id(source, file), "read", reason))

    def note_unused(self, source: Source, kind: UnusedKind, name: str, count: int = 1) -> None:
        """Count something that was read and does not reach the corpus."""
        self.unused[source.id, kind, name] += count

    def note_unread(self, source: Source) -> None:
        """Count the files of a source that are not read."""
        for name, count in source.unread.items():
            self.note_unused(source, "file", name, count)

    def note_encoding(self, source: Source, encoding: str | None) -> None:
        """Count a file whose text is not UTF-8, or has been read in the encoding that the user gave."""
        if encoding is not None:
            self.encodings[source.id, encoding] += 1


def sum_counts(counts: Iterable[Mapping[K, int]]) -> dict[K, int]:
    """The sum of several counts, in the order of their keys."""
    total: Counter[K] = Counter()
    for each in counts:
        total.update(each)
    return {key: total[key] for key in sorted(total)}


def sum_unused(counters: Iterable[Mapping[tuple[str, UnusedKind, str], int]]) -> list[Unused]:
    """The sum of what several passes did not use, in the order of source, kind and name.

    Of a source and kind, the most frequent names are listed, and the others with the count of the most frequent of them:
    rows whose keys are ids have as many names as there are rows.
    """
    ordered = sorted(sum_counts(counters).items(), key=lambda item: (*item[0][:2], -item[1], item[0][2]))
    unused: list[Unused] = []
    for (source, kind), group in groupby(ordered, key=lambda item: item[0][:2]):
        each = [Unused(source, kind, name[:NAME_LENGTH], count) for (_, _, name), count in group]
        rest = each[MOST_NAMES:]
        unused += sorted(each[:MOST_NAMES], key=lambda one: one.name)
        unused += [Unused(source, kind, f"({len(rest)} more names)", rest[0].count)] if rest else []
    return unused


def row_id(source: Source, file: DataFile, line: int, piece: int | None = None) -> str:
    """The id of a row in the corpus and in drops.jsonl: source, file, line, and the number of a chunk."""
    return f"{file_id(source, file)}:{line}" + (f"#{piece}" if piece is not None else "")


def file_id(source: Source, file: DataFile) -> str:
    """The id of a file in drops.jsonl."""
    return f"{source.id}/{file.name}"
