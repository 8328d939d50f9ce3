"""Differences between contestants: McNemar's exact test, and resampling that all of them share."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from finetune.evaluate.significance import compare_means, compare_pair, interval, labels_scorer, mcnemar, resample

counts = st.integers(0, 400)


@given(counts, counts)
def test_mcnemar_is_the_exact_binomial_test(better: int, worse: int) -> None:
    expected = binomtest(better, better + worse).pvalue if better + worse else 1.0
    assert mcnemar(better, worse) == pytest.approx(expected)


def test_mcnemar_of_thousands_of_rows_is_a_number() -> None:
    assert mcnemar(5000, 5000) == 1.0
    assert 0 <= mcnemar(9000, 100) < 1e-300


@settings(max_examples=8, deadline=None)  # each is resampled thousands of times
@given(st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=12))
def test_exchanged_contestants_have_the_opposite_difference(rows: list[tuple[float, float]]) -> None:
    base, adapter = (list(column) for column in zip(*rows, strict=True))
    there, back = compare_means(base, adapter), compare_means(adapter, base)
    assert there.delta == pytest.approx(-back.delta)
    assert there.ci95 == pytest.approx((-back.ci95[1], -back.ci95[0]))
    assert 0 < there.p_value <= 1


def test_one_row_shows_nothing() -> None:
    result = compare_means([0.0], [1.0])
    assert (result.delta, result.ci95, result.p_value) == (1.0, (-1.0, 1.0), 1.0)


def test_all_contestants_are_scored_on_the_same_resampled_rows() -> None:
    truth = ["a", "b"] * 20
    answers = [truth[::-1], truth, ["a"] * 40]
    together = resample(labels_scorer(truth, answers), 3, 40)
    assert interval(together[1]) == (1.0, 1.0)
    alone = compare_pair(labels_scorer(truth, [answers[2], answers[1]]), 40)
    assert interval(together[1] - together[2]) == pytest.approx(alone.ci95)
