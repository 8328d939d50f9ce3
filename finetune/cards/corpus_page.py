"""The page of a corpus: figures and bars, without scripts, external resources or any text of rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from finetune.cards.corpus_facts import CorpusFacts, by_size, describe_unused
from finetune.cards.templating import ENVIRONMENT

NAMED_LABELS, LABEL_LENGTH = 100, 80  # labels named per source; longest name
LISTED_HITS = 500
OPEN = 2**30  # words; a bin that ends here or above has no end
CLUSTER_BOUNDS = (2, 3, 4, 5, 10, 20, 50, 100)  # rows; larger clusters share the last bar


@dataclass(frozen=True)
class Bar:
    """A line of a bar chart: a count, its share of the total, and the length of the bar from 0 to 100."""

    name: str
    count: int
    share: float
    length: float


def corpus_page(facts: CorpusFacts) -> str:
    """The page as HTML; the same facts give the same bytes, whatever the order of their mappings.

    Labels are shown by name only if they are names: at most `NAMED_LABELS` per source, none above `LABEL_LENGTH`.
    """
    return ENVIRONMENT.get_template("corpus.html.jinja").render(
        facts=facts,
        splits=_bars(facts.splits),
        tasks=_bars(by_size(facts.by_task)),
        by_source=_bars(by_size({source.id: source.kept for source in facts.sources})),
        labels={source: _label_bars(labels) for source, labels in sorted(facts.labels.items())},
        words=_bars(_ranges(facts.words_histogram)),
        dropped=_bars(by_size({f"{step}: {reason}": rows for step, reason, rows in facts.dropped})),
        unused=describe_unused(facts.unused, facts.sources),
        cleaned=_bars(by_size(facts.cleaned)),
        clusters=_bars(_cluster_sizes(facts.clusters or {})),
        sources=sorted(facts.sources, key=lambda source: source.id),
        eval_sets=sorted(facts.eval_sets or (), key=lambda each: each.name),
        hits=sorted(facts.hits, key=lambda hit: (hit.eval_set, hit.item, hit.row, hit.field)),
        listed_hits=LISTED_HITS,
    )


def _bars(counts: Mapping[str, int]) -> list[Bar]:
    total, most = sum(counts.values()), max(counts.values(), default=0)
    return [
        Bar(name, count, count / total if total else 0.0, 100 * count / most if most else 0.0)
        for name, count in counts.items()
    ]


def _label_bars(labels: Mapping[str, int]) -> list[Bar]:
    """The most frequent labels, and one line without a bar for the others, so that the lines add up."""
    total = sum(labels.values())
    short = by_size({label: rows for label, rows in labels.items() if len(label) <= LABEL_LENGTH})
    named = dict(list(short.items())[:NAMED_LABELS])
    bars = [Bar(bar.name, bar.count, bar.count / total, bar.length) for bar in _bars(named)]
    others, rest = len(labels) - len(named), total - sum(named.values())
    return [*bars, Bar(f"({others:,} more)", rest, rest / total, 0.0)] if others else bars


def _ranges(histogram: Sequence[tuple[int, int]]) -> dict[str, int]:
    """Turn upper bounds into ranges, starting at 0."""
    ranges: dict[str, int] = {}
    low = 0
    for high, rows in sorted(histogram):
        name = f"{low:,} and more" if high >= OPEN else f"{low:,} to {high:,}" if low < high else f"{high:,}"
        ranges[name] = rows
        low = high + 1
    return ranges


def _cluster_sizes(clusters: Mapping[int, int]) -> dict[str, int]:
    """Number of clusters by size; a cluster has at least two rows."""
    sizes: dict[str, int] = {}
    low = 2
    for high in (*CLUSTER_BOUNDS, OPEN):
        number = sum(count for size, count in clusters.items() if low <= size <= high)
        name = f"{low} rows" if low == high else f"{low} to {high} rows" if high < OPEN else f"{low} rows and more"
        if number:
            sizes[name] = number
        low = high + 1
    return sizes
