"""A corpus as one page for people: figures and bars, no script, nothing fetched, and no text of any row."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

NAMED_LABELS, LABEL_LENGTH = 100, 80  # of a source; of a label: a longer one is rather a text than a name
LISTED_HITS = 500
OPEN = 2**30  # words; a bin that ends here or above has no end
CLUSTER_BOUNDS = (2, 3, 4, 5, 10, 20, 50, 100)  # rows; larger clusters share the last bar


@dataclass(frozen=True)
class CorpusFacts:
    """What the page and the card say of a corpus. It has no field for the text of a row, on purpose.

    Args:
        title: the corpus's name.
        splits: split -> rows.
        by_task: task -> rows.
        by_source: source -> rows.
        labels: source -> label -> rows, of the sources that have labels.
        words_histogram: (upper bound in words, included; rows), ascending.
        dropped: (step, reason, rows).
        clusters: rows in a cluster of near-duplicates -> clusters of that size; None where none were looked for.
        hits: matches with an eval set; keys `row` (id), `eval_set`, `item` (id), `field`, `overlap` (a share from 0 to 1,
            or text). Ids only.
        sources: keys `id`, `uri`, `revision`, `read`, `kept`, `license`, `shape`.
        license: the corpus's, the strictest of its sources.
        notes: further sentences.
        split_rule: a sentence that says how a row came to its split.
        disjoint: a sentence that says what the splits do not share, once that was checked.
        eval_sets: what the corpus was compared with; keys `name`, `items`; empty: with nothing; None: not told.
        boilerplate: n-grams shared with an eval set that did not count because many documents have them.
    """

    title: str
    splits: Mapping[str, int]
    by_task: Mapping[str, int]
    by_source: Mapping[str, int]
    labels: Mapping[str, Mapping[str, int]]
    words_histogram: Sequence[tuple[int, int]]
    dropped: Sequence[tuple[str, str, int]]
    clusters: Mapping[int, int] | None
    hits: Sequence[Mapping[str, Any]]
    sources: Sequence[Mapping[str, Any]]
    license: str
    notes: Sequence[str] = ()
    split_rule: str = ""
    disjoint: str = ""
    eval_sets: Sequence[Mapping[str, Any]] | None = None
    boilerplate: int = 0

    @property
    def rows(self) -> int:
        """Rows in all splits."""
        return sum(self.splits.values())

    @property
    def left_out(self) -> int:
        """Rows that some step dropped."""
        return sum(rows for _, _, rows in self.dropped)

    def matched(self, eval_set: str) -> int:
        """Rows that gave away something of an eval set."""
        return len({hit["row"] for hit in self.hits if hit["eval_set"] == eval_set})


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart: a number, its share of all numbers, and the bar's length from 0 to 100."""

    name: str
    count: int
    share: float
    length: float


def corpus_page(facts: CorpusFacts) -> str:
    """The page as HTML; the same facts give the same bytes, in whatever order their mappings are.

    Labels are shown by name only where they are names: at most `NAMED_LABELS` of a source, none over `LABEL_LENGTH`.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("finetune.cards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"count": "{:,}".format, "percent": _percent}
    return environment.get_template("corpus.html.jinja").render(
        facts=facts,
        splits=_bars(facts.splits.items()),
        tasks=_bars(_by_size(facts.by_task)),
        by_source=_bars(_by_size(facts.by_source)),
        labels={source: _label_bars(labels) for source, labels in sorted(facts.labels.items())},
        words=_bars(_ranges(facts.words_histogram)),
        dropped=_bars(_by_size({f"{step}: {reason}": rows for step, reason, rows in facts.dropped})),
        clusters=_bars(_cluster_sizes(facts.clusters or {})),
        sources=sorted(facts.sources, key=lambda source: str(source["id"])),
        eval_sets=sorted(facts.eval_sets or (), key=lambda each: str(each["name"])),
        hits=sorted(facts.hits, key=lambda hit: [str(hit[key]) for key in ("eval_set", "item", "row", "field")]),
        listed_hits=LISTED_HITS,
        overlap=_overlap,
    )


def _bars(counts: Iterable[tuple[str, int]]) -> list[Bar]:
    rows = list(counts)
    total, most = sum(count for _, count in rows), max((count for _, count in rows), default=0)
    return [
        Bar(name, count, count / total if total else 0.0, 100 * count / most if most else 0.0) for name, count in rows
    ]


def _by_size(counts: Mapping[str, int]) -> list[tuple[str, int]]:
    return sorted(counts.items(), key=lambda item: (-item[1], item[0]))


def _label_bars(labels: Mapping[str, int]) -> list[Bar]:
    """The most frequent labels, and what is left of them in a line without a bar, so that the lines still add up."""
    total = sum(labels.values())
    named = _by_size({label: rows for label, rows in labels.items() if len(label) <= LABEL_LENGTH})[:NAMED_LABELS]
    bars = [Bar(bar.name, bar.count, bar.count / total, bar.length) for bar in _bars(named)]
    others, rest = len(labels) - len(named), total - sum(rows for _, rows in named)
    return [*bars, Bar(f"({others:,} more)", rest, rest / total, 0.0)] if others else bars


def _ranges(histogram: Sequence[tuple[int, int]]) -> list[tuple[str, int]]:
    """Upper bounds as ranges, from 0 on."""
    ranges, low = [], 0
    for high, rows in sorted(histogram):
        name = f"{low:,} and more" if high >= OPEN else f"{low:,} to {high:,}" if low < high else f"{high:,}"
        ranges.append((name, rows))
        low = high + 1
    return ranges


def _cluster_sizes(clusters: Mapping[int, int]) -> list[tuple[str, int]]:
    """Clusters by their size; a cluster has two rows at least."""
    sizes, low = [], 2
    for high in (*CLUSTER_BOUNDS, OPEN):
        found = sum(count for size, count in clusters.items() if low <= size <= high)
        name = f"{low} rows" if low == high else f"{low} to {high} rows" if high < OPEN else f"{low} rows and more"
        if found:
            sizes.append((name, found))
        low = high + 1
    return sizes


def _percent(share: float) -> str:
    return "< 0.1 %" if 0 < share < 0.001 else f"{share:.1%}".replace("%", " %")


def _overlap(value: object) -> str:
    return f"{value:.0%}".replace("%", " %") if isinstance(value, float) else str(value)
