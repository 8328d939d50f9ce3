"""Figures that agree with scikit-learn and with counts by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, f1_score

from finetune.evaluate.significance import compare_means, compare_pair, label_sets_scorer, labels_scorer
from finetune.scoring.metrics import (
    answer_f1,
    answer_match,
    classification_scores,
    label_set_scores,
    majority,
    token_f1,
    weighted_f1,
)

label_sets = st.lists(st.tuples(st.sets(st.sampled_from("abc")), st.sets(st.sampled_from("abc"))), min_size=1)
pairs = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=40)


@given(pairs)
def test_fast_weighted_f1_equals_that_of_scikit_learn(rows: list[tuple[int, int]]) -> None:
    truth, answers = (np.array(column) for column in zip(*rows, strict=True))
    expected = f1_score(truth, answers, average="weighted", zero_division=0)
    assert weighted_f1(truth, answers, 4) == pytest.approx(expected)


def test_scores_of_a_known_table() -> None:
    scores = classification_scores(["a", "a", "a", "b"], ["a", "a", "b", "b"])
    assert scores["accuracy"] == 0.75
    assert scores["weighted_f1"] == pytest.approx(0.75 * 0.8 + 0.25 * (2 / 3))
    assert scores["macro_f1"] == pytest.approx((0.8 + 2 / 3) / 2)


def test_majority_is_the_most_frequent_label() -> None:
    result = majority(["b", "a", "b"])
    assert result.label == "b"
    assert result.scores["accuracy"] == pytest.approx(2 / 3)


def test_token_f1_by_hand() -> None:
    assert token_f1("The yield rises", "the yield falls") == pytest.approx(2 * 2 / 6)
    assert token_f1("yes", "") == 0.0


@given(label_sets)
def test_scores_of_label_sets_equal_those_of_scikit_learn(rows: list[tuple[set[str], set[str]]]) -> None:
    truth, predictions = (list(column) for column in zip(*rows, strict=True))
    arrays = [np.array([[name in row for name in "abc"] for row in column]) for column in (truth, predictions)]
    scores = label_set_scores(truth, predictions)
    assert scores["micro_f1"] == pytest.approx(f1_score(*arrays, average="micro", zero_division=0))
    assert scores["exact_match"] == pytest.approx(accuracy_score(*arrays))
    expected = [number for number in range(3) if arrays[0][:, number].any()]
    macro = f1_score(*arrays, average="macro", labels=expected, zero_division=0) if expected else 0.0
    assert scores["macro_f1"] == pytest.approx(macro)


def test_extracted_answers_are_compared_as_for_squad() -> None:
    assert answer_match("The 5% yield.", "5 yield") == 1.0
    assert answer_match("the yield", "the bond") == 0.0
    assert answer_f1("The yield of a bond", "bond yield rises") == pytest.approx(2 * 2 / 6)
    assert answer_f1("a", "the") == 1.0
    assert answer_f1("yes", "") == 0.0


def test_label_sets_that_are_always_right_beat_none() -> None:
    truth: list[tuple[str, ...]] = [("a",), ("a", "b"), ()] * 20
    result = compare_pair(label_sets_scorer(truth, [[()] * 60, truth]), 60)
    assert (result.delta, result.ci95) == (1.0, (1.0, 1.0))
    assert result.p_value < 0.01


def test_clear_gain_has_an_interval_above_zero_and_a_small_p() -> None:
    labels = ["a", "b"] * 60
    result = compare_pair(labels_scorer(labels, [["a"] * 120, labels]), 120)
    assert result.delta == pytest.approx(1 - weighted_f1(np.array([0, 1] * 60), np.zeros(120, int), 2))
    assert 0 < result.ci95[0] <= result.delta <= result.ci95[1]
    assert result.p_value < 0.01


def test_no_difference_is_no_gain() -> None:
    result = compare_means([0.2, 0.4, 0.6] * 10, [0.2, 0.4, 0.6] * 10)
    assert (result.delta, result.ci95, result.p_value) == (0.0, (0.0, 0.0), 1.0)


def test_chance_is_rarely_reported_as_a_gain() -> None:
    """For two models that guess, about one interval in twenty excludes 0."""
    random = np.random.default_rng(0)
    gains = 0
    for _ in range(20):
        labels, base, adapter = (random.choice(["a", "b"], 100).tolist() for _ in range(3))
        low, high = compare_pair(labels_scorer(labels, [base, adapter]), 100).ci95
        gains += not low <= 0 <= high
    assert gains <= 3
