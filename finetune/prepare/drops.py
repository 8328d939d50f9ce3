"""The rows and files that are left out, with the reason for each, and what is counted beside them."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from finetune.errors import InputError, RecordError, Unusable
from finetune.prepare.formats.files import DataFile
from finetune.prepare.sources.source import Source
from finetune.records import Drop


@dataclass
class Drops:
    """What one pass leaves out and counts; those of several blocks add up."""

    on_error: Literal["fail", "skip"]
    items: list[Drop] = field(default_factory=list)
    read: int = 0
    scrubbed: Counter[str] = field(default_factory=Counter)  # by kind of identifier
    escaped: int = 0  # control tokens of chat models in somebody's text
    test_ids: set[str] = field(default_factory=set)  # met, of the test sets that lie in another split

    def refuse(self, source: Source, file: DataFile, problem: Unusable, line: int | None = None) -> None:
        """Drop a row that cannot be used, a whole document where there is no line, or stop at it.

        Raises:
            RecordError: what cannot be used is not to be skipped.
        """
        expected = problem.reason == "no_answer" and source.recipe is not None and source.recipe.drop_unanswered
        if self.on_error == "fail" and not expected:
            raise RecordError(file.shown if line is None else f"{file.shown}:{line}", str(problem))
        name = file_id(source, file) if line is None else row_id(source, file, line)
        self.items.append(Drop(name, "read", problem.reason))

    def refuse_file(self, source: Source, file: DataFile, reason: str, error: InputError) -> None:
        """Drop a file that cannot be used, or stop at it.

        Raises:
            InputError: the one given, where broken files are not to be skipped.
        """
        if self.on_error == "fail":
            raise error
        self.items.append(Drop(file_id(source, file), "read", reason))


def row_id(source: Source, file: DataFile, line: int, piece: int | None = None) -> str:
    """What a row is called in the corpus and among the dropped: source, file, line, and the piece of a long text."""
    return f"{file_id(source, file)}:{line}" + (f"#{piece}" if piece is not None else "")


def file_id(source: Source, file: DataFile) -> str:
    """What a file is called among the dropped."""
    return f"{source.id}/{file.name}"
