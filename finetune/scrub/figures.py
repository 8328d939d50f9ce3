"""How much personal data is found, from rows that a person has corrected: recall and precision with intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

Z = 1.959964  # of a normal distribution: 95 % of it lie closer to its mean
Mark = tuple[int, int, str]  # the first character, the one after the last, and the kind
Interval = tuple[float, float]


@dataclass(frozen=True, slots=True)
class CheckedRow:
    """A text, what was found in it, what a person says is in it, and for how many rows it stands."""

    text: str
    found: tuple[Mark, ...]
    right: tuple[Mark, ...]
    weight: float = 1.0


@dataclass(frozen=True)
class Figures:
    """Recall and precision of a kind; None where nothing was marked.

    `spans` of a person, of which `hit` are covered by what was found, of whatever kind; `marks` that were found, of which
    `right` touch such a span. The recall counts each span by the weight of its row. Intervals are Wilson's, at 95 %.
    """

    spans: int
    hit: int
    recall: float | None
    recall_interval: Interval | None
    marks: int
    right: int
    precision: float | None
    precision_interval: Interval | None


def wilson(share: float, n: float) -> Interval:
    """The interval of a share of `n` that covers the true one 95 times in 100 (Wilson 1927)."""
    middle = (share + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(share * (1 - share) / n + Z * Z / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def spans_needed(recall: float) -> int:
    """How many spans must be found without a miss to show a recall."""
    return math.ceil(recall / (1 - recall) * Z * Z)


def measure(rows: Sequence[CheckedRow]) -> dict[str, Figures]:
    """The figures of each kind, and of `all`."""
    kinds = sorted({kind for row in rows for _, _, kind in (*row.found, *row.right)})
    return {**{kind: _figures(rows, {kind}) for kind in kinds}, "all": _figures(rows, set(kinds))}


def _figures(rows: Iterable[CheckedRow], kinds: set[str]) -> Figures:
    spans = [
        (is_covered(row.text, mark, row.found), row.weight) for row in rows for mark in row.right if mark[2] in kinds
    ]
    marks = [any(touches(mark, each) for each in row.right) for row in rows for mark in row.found if mark[2] in kinds]
    recall = interval = None
    if spans:
        total = sum(weight for _, weight in spans)
        recall = sum(weight for hit, weight in spans if hit) / total
        # Spans of unequal weight tell as much as a smaller number of equal ones (Korn and Graubard 1998).
        interval = wilson(recall, total**2 / sum(weight**2 for _, weight in spans))
    right = sum(marks)
    precision = right / len(marks) if marks else None
    return Figures(
        len(spans),
        sum(hit for hit, _ in spans),
        recall,
        interval,
        len(marks),
        right,
        precision,
        None if precision is None else wilson(precision, len(marks)),
    )


def is_covered(text: str, mark: Mark, found: Sequence[Mark]) -> bool:
    """Whether every letter and digit of a span lies in what was found."""
    return all(
        any(start <= place < end for start, end, _ in found)
        for place in range(mark[0], mark[1])
        if text[place].isalnum()
    )


def touches(one: Mark, other: Mark) -> bool:
    """Whether two spans share a character."""
    return one[0] < other[1] and other[0] < one[1]
