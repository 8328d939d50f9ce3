"""What the card and the page say of a corpus: counts, names and ids, on purpose without a field for a row's text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

K = TypeVar("K", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """Where rows come from, and how many of those that were `read` were `kept`; `shape` is what they were read as."""

    id: str
    uri: str
    revision: str | None
    read: int
    kept: int
    license: str
    shape: str


@dataclass(frozen=True, slots=True)
class ComparedSet:
    """An eval set that the rows were compared with."""

    name: str
    items: int


@dataclass(frozen=True, slots=True)
class NamedHit:
    """A row that gives away a field of an eval set's item, by their ids; `overlap` is a share from 0 to 1."""

    row: str
    eval_set: str
    item: str
    field: str
    overlap: float


@dataclass(frozen=True)
class CorpusFacts:
    """All facts about a corpus.

    Args:
        title: the corpus's name.
        splits: split -> rows.
        by_task: task -> rows.
        labels: source -> label -> rows, of the sources that have labels.
        words_histogram: (upper bound in words, included; rows), ascending.
        dropped: (step, reason, rows).
        clusters: rows in a cluster of near-duplicates -> clusters of that size; None where none were looked for.
        hits: matches with an eval set.
        sources: where the rows come from.
        license: the corpus's, the strictest of its sources.
        notes: further sentences.
        split_rule: a sentence that says how a row came to its split.
        disjoint: a sentence that says what the splits do not share, once that was checked.
        eval_sets: what the corpus was compared with; empty: with nothing; None: not told.
        scrubbed: kind of identifier -> how many were replaced; None where none were looked for.
        boilerplate: n-grams shared with an eval set that did not count because many documents have them.
    """

    title: str
    splits: Mapping[str, int]
    by_task: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    words_histogram: Sequence[tuple[int, int]]
    dropped: Sequence[tuple[str, str, int]]
    clusters: Mapping[int, int] | None
    hits: Sequence[NamedHit]
    sources: Sequence[SourceFacts]
    license: str
    notes: Sequence[str] = ()
    split_rule: str = ""
    disjoint: str = ""
    eval_sets: Sequence[ComparedSet] | None = None
    scrubbed: Mapping[str, int] | None = None
    boilerplate: int = 0

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return sum(self.splits.values())

    @property
    def left_out(self) -> int:
        """Rows that some step dropped."""
        return sum(rows for _, _, rows in self.dropped)

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """Rows that some step dropped, by the word for why."""
        return {reason: rows for _, reason, rows in self.dropped}

    @property
    def clustered(self) -> int:
        """Kept rows that others nearly repeated."""
        return sum((self.clusters or {}).values())

    def matched(self, eval_set: str) -> int:
        """Rows that gave away something of an eval set."""
        return len({hit.row for hit in self.hits if hit.eval_set == eval_set})

    @property
    def contaminated(self) -> int:
        """Rows that gave away something of any eval set."""
        return len({hit.row for hit in self.hits})


def by_size(counts: Mapping[K, int]) -> dict[K, int]:
    """The counts in order, the largest first."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
