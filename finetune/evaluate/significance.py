"""Is the difference between base and adapter more than chance? Paired resampling over the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.evaluate.request import Comparison
from finetune.scoring.metrics import count_f1, label_counts, weighted_f1

Scorer = Callable[[NDArray[np.intp], NDArray[np.intp]], float]  # (model of each row, row) -> score

RESAMPLES = 2000  # the standard error of a 95 % bound is then about 0.5 percentage points of coverage


def compare_labels(labels: Sequence[str], base: Sequence[str], adapter: Sequence[str], seed: int = 0) -> Comparison:
    """Compare weighted F1."""
    names = {name: code for code, name in enumerate(sorted({*labels, *base, *adapter}))}
    truth = np.array([names[label] for label in labels])
    answers = np.array([[names[label] for label in base], [names[label] for label in adapter]])

    def score(model: NDArray[np.intp], rows: NDArray[np.intp]) -> float:
        return weighted_f1(truth[rows], answers[model, rows], len(names))

    return _compare(score, len(labels), seed)


def compare_label_sets(
    truth: Sequence[Collection[str]],
    base: Sequence[Collection[str]],
    adapter: Sequence[Collection[str]],
    seed: int = 0,
) -> Comparison:
    """Compare micro F1 of rows with any number of labels."""
    names = sorted({name for row in (*truth, *base, *adapter) for name in row})
    counts = np.array([label_counts(names, truth, base), label_counts(names, truth, adapter)])

    def score(model: NDArray[np.intp], rows: NDArray[np.intp]) -> float:
        return count_f1(counts[model, rows].sum(0))

    return _compare(score, len(truth), seed)


def compare_means(base: Sequence[float], adapter: Sequence[float], seed: int = 0) -> Comparison:
    """Compare the means of per-row scores."""
    values = np.array([base, adapter])

    def score(model: NDArray[np.intp], rows: NDArray[np.intp]) -> float:
        return float(values[model, rows].mean())

    return _compare(score, len(base), seed)


def _compare(score: Scorer, rows: int, seed: int) -> Comparison:
    """Paired bootstrap for the interval (Efron and Tibshirani 1993, percentile method), sign flips for the p-value."""
    random = np.random.default_rng(seed)
    base, adapter, all_rows = np.zeros(rows, np.intp), np.ones(rows, np.intp), np.arange(rows)
    delta = score(adapter, all_rows) - score(base, all_rows)
    resampled = []
    for _ in range(RESAMPLES):
        drawn = random.integers(0, rows, rows)
        resampled.append(score(adapter, drawn) - score(base, drawn))
    low, high = np.quantile(resampled, [0.025, 0.975])
    as_large = 0
    for _ in range(RESAMPLES):
        swap = random.integers(0, 2, rows)
        as_large += abs(score(1 - swap, all_rows) - score(swap, all_rows)) >= abs(delta) - 1e-12
    # Add-one: a permutation p-value is never zero (Phipson and Smyth 2010).
    return Comparison(delta, (float(low), float(high)), (as_large + 1) / (RESAMPLES + 1))
