"""What is counted on the way: rows read, rows left out and why, identifiers replaced."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from finetune.errors import InputError, RecordError
from finetune.prepare.formats.files import DataFile
from finetune.prepare.sources.source import Source
from finetune.records import Drop

Policy = Literal["fail", "skip"]


@dataclass
class Ledger:
    """The counts of one pass; those of several blocks add up."""

    on_error: Policy
    read: Counter[str] = field(default_factory=Counter)  # by source
    drops: list[Drop] = field(default_factory=list)
    scrubbed: Counter[str] = field(default_factory=Counter)  # by kind of identifier
    neutralised: int = 0  # control tokens of chat models in somebody's text

    def refuse(self, source: Source, file: DataFile, line: int, reason: str, problem: str) -> None:
        """Drop a row that cannot be used, or stop at it.

        Raises:
            RecordError: broken rows are not to be skipped.
        """
        expected = reason == "no_answer" and source.recipe is not None and source.recipe.drop_unanswered
        if self.on_error == "fail" and not expected:
            raise RecordError(f"{file.shown}:{line}", problem)
        self.drops.append(Drop(row_id(source, file, line), "read", reason))

    def refuse_file(self, source: Source, file: DataFile, reason: str, error: InputError) -> None:
        """Drop a file that cannot be used, or stop at it.

        Raises:
            InputError: the one given, where broken files are not to be skipped.
        """
        if self.on_error == "fail":
            raise error
        self.drops.append(Drop(file_id(source, file), "read", reason))


def row_id(source: Source, file: DataFile, line: int, piece: int | None = None) -> str:
    """What a row is called in the corpus and among the dropped: source, file, line, and the piece of a long text."""
    return f"{file_id(source, file)}:{line}" + (f"#{piece}" if piece is not None else "")


def file_id(source: Source, file: DataFile) -> str:
    """What a file is called among the dropped."""
    return f"{source.id}/{file.name}"
