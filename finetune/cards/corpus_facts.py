"""The facts on the card and the page of a corpus: counts, names and ids, deliberately without any text of rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from finetune.records import TextMetric, Unused

K = TypeVar("K", str, tuple[str, str])


@dataclass(frozen=True, slots=True)
class SourceFacts:
    """The origin of rows, how many were `read` and `kept`, and the `shape` they were read as.

    `encodings` counts the files of text that are not UTF-8, by the name of the encoding. `metrics` score generated answers to
    its rows, the headline first; there are none unless a recipe chose them. `task` is the name of its task in a domain, and
    `prompt` the template of its questions, unless these are a text as it is.
    """

    id: str
    uri: str
    revision: str | None
    read: int
    kept: int
    license: str
    shape: str
    encodings: Mapping[str, int] = field(default_factory=dict)
    metrics: tuple[TextMetric, ...] = ()
    task: str | None = None
    prompt: str | None = None


@dataclass(frozen=True, slots=True)
class ComparedSet:
    """An eval set with which the rows were compared."""

    name: str
    items: int


@dataclass(frozen=True, slots=True)
class NamedHit:
    """A row that contains a field of an eval item, identified by their ids; `overlap` is a share from 0 to 1."""

    row: str
    eval_set: str
    item: str
    field: str
    overlap: float


@dataclass(frozen=True)
class CorpusFacts:
    """All facts about a corpus.

    Args:
        title: the name of the corpus.
        splits: split -> rows.
        by_task: task -> rows.
        labels: source -> label -> rows, for sources with labels.
        words_histogram: (upper bound in words, inclusive; rows), ascending.
        dropped: (step, reason, rows).
        unused: what the sources have and the corpus lacks.
        clusters: size of a cluster of near-duplicates in rows -> clusters of that size; None: not searched for.
        hits: matches with eval sets.
        sources: the origin of the rows.
        license: the licence of the corpus, the strictest among its sources.
        notes: further sentences.
        split_rule: a sentence that says how rows were assigned to splits.
        disjoint: a sentence that says what the splits do not share, if that was checked.
        eval_sets: the eval sets that the corpus was compared with; empty: none; None: unknown.
        cleaned: what cleaning changed -> rows in which it did.
        scrubbed: kind of identifier -> number of replacements; None: not searched for.
        scrub_policy: what they were replaced by: tag, mask or surrogate.
        scrub_kinds: the kinds that were searched for.
        scrub_tagger: the model that found names, if any.
        columns: the columns of the rows, if they are known.
        boilerplate: number of n-grams shared with an eval set that did not count because many documents contain them.
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
    cleaned: Mapping[str, int] = field(default_factory=dict)
    scrubbed: Mapping[str, int] | None = None
    scrub_policy: str = "tag"
    scrub_kinds: Sequence[str] = ()
    scrub_tagger: str | None = None
    boilerplate: int = 0
    unused: Sequence[Unused] = ()
    columns: Sequence[str] = ()

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return sum(self.splits.values())

    @property
    def left_out(self) -> int:
        """Number of dropped rows."""
        return sum(rows for _, _, rows in self.dropped)

    @property
    def dropped_by_reason(self) -> dict[str, int]:
        """Number of dropped rows, by reason."""
        return {reason: rows for _, reason, rows in self.dropped}

    @property
    def clustered(self) -> int:
        """Number of kept rows that have near-duplicates."""
        return sum((self.clusters or {}).values())

    def matched(self, eval_set: str) -> int:
        """Number of rows that contain an item of an eval set."""
        return len({hit.row for hit in self.hits if hit.eval_set == eval_set})

    @property
    def contaminated(self) -> int:
        """Number of rows that contain an item of any eval set."""
        return len({hit.row for hit in self.hits})


def describe_encodings(sources: Iterable[SourceFacts]) -> str:
    """Files that were not read as UTF-8, for a reader: "notes: 2 files as cp1250"."""
    return ", ".join(
        f"{source.id}: {count} {'file' if count == 1 else 'files'} as {name}"
        for source in sources
        for name, count in source.encodings.items()
    )


def describe_unused(unused: Iterable[Unused], sources: Iterable[SourceFacts]) -> dict[str, str]:
    """What was not used, and how often, for a reader: {"column history of notes": "3 of 4 rows"}."""
    read = {source.id: source.read for source in sources}
    return {f"{each.kind} {each.name} of {each.source}": _frequency(each, read.get(each.source, 0)) for each in unused}


def _frequency(unused: Unused, read: int) -> str:
    if unused.kind in {"column", "key of a turn"}:
        return f"{unused.count:,} of {read:,} rows"
    if unused.kind == "sheet":
        return f"{unused.count:,} {'row' if unused.count == 1 else 'rows'}"
    if unused.kind == "file":
        return f"{unused.count:,} {'file' if unused.count == 1 else 'files'}"
    return f"{unused.count:,} {'time' if unused.count == 1 else 'times'}"


def by_size(counts: Mapping[K, int]) -> dict[K, int]:
    """The counts, sorted by size in descending order."""
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
