"""Recall and precision of checked rows, and what their number allows to say."""

from __future__ import annotations

import pytest
from scipy.stats import binomtest

from finetune.scrub.figures import CheckedRow, measure, spans_needed, wilson


@pytest.mark.parametrize(("hits", "n"), [(0, 5), (3, 7), (95, 100), (40, 40)])
def test_intervals_are_those_of_wilson(hits: int, n: int) -> None:
    reference = binomtest(hits, n).proportion_ci(method="wilson")
    assert wilson(hits / n, n) == pytest.approx((reference.low, reference.high), abs=1e-6)


def test_so_many_spans_without_a_miss_show_a_recall() -> None:
    needed = spans_needed(0.95)
    assert wilson(1, needed)[0] >= 0.95 > wilson(1, needed - 1)[0]


def test_a_span_counts_as_found_only_if_it_is_covered_whole() -> None:
    text = "Jane Doe, 12 Main St"
    whole = CheckedRow(text, ((0, 4, "NAME"), (5, 8, "NAME")), ((0, 8, "NAME"),))
    half = CheckedRow(text, ((0, 4, "NAME"),), ((0, 8, "NAME"),))
    other = CheckedRow(text, ((0, 20, "ADDRESS"),), ((0, 8, "NAME"),))
    assert [measure([row])["NAME"].recall for row in (whole, half, other)] == [1, 0, 1]
    wrong = CheckedRow(text, ((10, 12, "AGE"),), ())
    assert measure([wrong])["AGE"].precision == 0
    assert measure([wrong])["all"].recall is None


def test_rows_count_for_as_many_as_they_stand_for() -> None:
    found = CheckedRow("a", ((0, 1, "X"),), ((0, 1, "X"),), weight=1)
    missed = CheckedRow("b", (), ((0, 1, "X"),), weight=9)
    figures = measure([found, missed])["X"]
    assert figures.recall == 0.1
    assert (figures.spans, figures.hit, figures.precision) == (2, 1, 1)
    assert figures.recall_interval == pytest.approx(wilson(0.1, 100 / 82))
