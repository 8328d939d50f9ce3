"""Calibration: a model that is as often right as it says has no error, and the bins account for every row."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.calibration import calibration_curve

from finetune.evaluate.calibration import BINS, calibrate

answers = st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=1, max_size=60)


@given(answers)
def test_bins_account_for_every_row(rows: list[tuple[float, bool]]) -> None:
    sure, right = (list(column) for column in zip(*rows, strict=True))
    result = calibrate(sure, right)
    assert sum(one.n for one in result.bins) == len(rows)
    assert sum(one.n * one.accuracy for one in result.bins) == pytest.approx(sum(right))
    assert sum(one.n * one.confidence for one in result.bins) == pytest.approx(sum(sure))
    assert all(one.low - 1e-9 <= one.confidence <= one.high + 1e-9 for one in result.bins)
    assert 0 <= result.ece <= 1


@given(answers)
def test_reliability_diagram_equals_that_of_scikit_learn(rows: list[tuple[float, bool]]) -> None:
    sure, right = (list(column) for column in zip(*rows, strict=True))
    sure = [min(max(value, 1e-6), 1.0) for value in sure]
    bounds = np.linspace(0, 1, BINS + 1)[1:]
    if any(np.isclose(value, bounds, atol=1e-9).any() for value in sure):
        return  # scikit-learn's bins contain their lower bound, those of Guo et al. their upper one
    accuracy, confidence = calibration_curve(right, sure, n_bins=BINS)
    bins = calibrate(sure, right).bins
    assert [one.accuracy for one in bins] == pytest.approx(accuracy.tolist())
    assert [one.confidence for one in bins] == pytest.approx(confidence.tolist())


def test_error_of_a_model_that_is_too_sure() -> None:
    assert calibrate([0.95] * 4, [True, False, False, False]).ece == pytest.approx(0.95 - 0.25)
    assert calibrate([0.75] * 4, [True, True, True, False]).ece == pytest.approx(0)


def test_bin_contains_its_upper_bound() -> None:
    assert [(one.low, one.n) for one in calibrate([0.1, 0.0, 1.0], [True, True, True]).bins] == [(0.0, 2), (0.9, 1)]
