"""Which labels are taken for which others: as a matrix or, for many labels, as a list of the most frequent confusions."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.cards.scored_rows import ANSWER_LENGTH, ScoredRow
from finetune.cards.templating import shorten

MATRIX_LABELS = 12  # more do not fit on a screen: then the most frequent confusions are listed


@dataclass(frozen=True)
class Cell:
    """Rows with one expected and one given label, and their share of the rows with that expected label."""

    rows: int
    share: float
    right: bool


@dataclass(frozen=True)
class Confusion:
    """An expected label, the label that the adapter gave instead, and how often the adapter and its base did so."""

    expected: str
    given: str
    base: int
    adapter: int


def labels_of(rows: Sequence[ScoredRow]) -> list[str]:
    """The labels that are expected or given by base or adapter, in the order of the choices."""
    occurring = {text for row in rows for text in (row.reference, row.base.text, row.adapter.text)}
    ordered = dict.fromkeys([*(choice for row in rows for choice in row.choices), *sorted(occurring)])
    return [label for label in ordered if label in occurring]


def count_matrix(rows: Sequence[ScoredRow], labels: Sequence[str], contestant: str) -> list[list[Cell]]:
    """One line per expected label, one cell per given label."""
    counts = Counter((row.reference, row.answers[contestant].text) for row in rows)
    sizes = Counter(row.reference for row in rows)
    return [
        [Cell(counts[label, given], counts[label, given] / (sizes[label] or 1), label == given) for given in labels]
        for label in labels
    ]


def most_frequent(rows: Sequence[ScoredRow]) -> list[Confusion]:
    """The most frequent wrong labels of the adapter."""
    base = Counter((row.reference, row.base.text) for row in rows)
    adapter = Counter((row.reference, row.adapter.text) for row in rows if row.adapter.text != row.reference)
    frequent = sorted(adapter.items(), key=lambda item: (-item[1], item[0]))[:MATRIX_LABELS]
    return [
        Confusion(shorten(pair[0], ANSWER_LENGTH), shorten(pair[1], ANSWER_LENGTH), base[pair], number)
        for pair, number in frequent
    ]
