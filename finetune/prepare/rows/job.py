"""What a worker process needs to make rows: its block, and what is known before the rows are read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.formats.files import Lines, Rows
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.part import Part
from finetune.prepare.splits.timestamps import parse_time_rule
from finetune.scrub import Scrubber


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a part, or the file of an extracted document; `number` counts within its part."""

    number: int
    part: int
    content: Lines | Rows | Path


@dataclass(frozen=True)
class Job:
    """What a worker process needs: the request, and what is known before the rows are read."""

    request: PrepareRequest
    parts: tuple[Part, ...]
    folder: Path  # of the shards
    languages: frozenset[str]  # allowed languages; empty: any
    evals: EvalIndex | None = None
    scrubber: Scrubber | None = None
    repeated: Mapping[str, frozenset[int]] = field(default_factory=dict)  # source -> lines that its documents share

    @cached_property
    def time_column(self) -> str | None:
        """The column of the timestamps, if rows are split by time."""
        rule = parse_time_rule(self.request.split_by_time)
        return rule.column if rule else None
