"""The numbers that decide duplicates, splits and limits: a hundred bytes per row, and no text."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from finetune.records import SPLITS, TASKS

Array = npt.NDArray[Any]

CLASSIFICATION, PREFERENCE = TASKS.index("classification"), TASKS.index("preference")
TRAIN, VALIDATION, TEST = (SPLITS.index(split) for split in ("train", "validation", "test"))
KEPT = 0
OPEN = -1  # the split of a row that has not been assigned yet


@dataclass
class RowTable:
    """Arrays over all rows of all shards, in order; row numbers index them.

    `reason` is an index into `reasons`, 0 for rows that are kept; `earlier` rows come from earlier corpora and are only
    compared with; `grouped` rows share their `draw` with the other rows of their group.
    """

    source: Array  # (rows,) int32: number of the source
    key: Array  # (rows, 2) uint64: digest of the question
    answer: Array  # (rows,) uint64
    wording: Array  # (rows,) uint64: digest of what different answers contradict each other about
    draw: Array  # (rows,) uint64: decides the split
    rank: Array  # (rows,) uint64: decides what --limit takes
    split: Array  # (rows,) int8: index into SPLITS, or OPEN
    official: Array  # (rows,) bool
    kind: Array  # (rows,) int8: index into TASKS
    words: Array  # (rows,) uint32
    length: Array  # (rows,) uint32: characters
    timestamp: Array  # (rows,) float64: seconds since 1970, NaN where unknown
    guard: Array  # (rows,) uint64
    label: Array  # (rows,) int32: number of the label, -1 without one
    grouped: Array  # (rows,) bool
    earlier: Array  # (rows,) bool
    reason: Array  # (rows,) uint8
    reasons: list[tuple[str, str]] = field(default_factory=lambda: [("", "")])

    @property
    def kept(self) -> Array:
        """(rows,) bool: the rows of the corpus."""
        kept: Array = (self.reason == KEPT) & ~self.earlier
        return kept

    def drop(self, rows: Array | int, step: str, reason: str) -> None:
        """Drop rows."""
        if (step, reason) not in self.reasons:
            self.reasons.append((step, reason))
        self.reason[rows] = self.reasons.index((step, reason))

    def split_at(self, row: int) -> int:
        """The index of a row's split; a row without one counts as train."""
        return TRAIN if self.split[row] == OPEN else int(self.split[row])

    def order(self) -> Array:
        """Row numbers, the best first: earlier corpora, published test sets, test, validation, train; within these, by
        order of the sources, then the longest, then the first.
        """
        held = np.select([self.split == TEST, self.split == VALIDATION], [2, 3], 4)
        standing = np.where(self.earlier, 0, np.where(self.official, 1, held))
        rows = np.arange(len(standing))
        best = np.lexsort((rows, -self.length.astype(np.int64), self.source, standing))
        kept: Array = best[self.reason[best] == KEPT]
        return kept
