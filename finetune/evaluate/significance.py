"""Is the difference between two contestants more than chance? Paired resampling over the rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from finetune.evaluate.details import Interval
from finetune.evaluate.request import Comparison
from finetune.scoring.metrics import count_f1, label_counts, weighted_f1

Numbers = NDArray[np.intp]
Scores = NDArray[np.float64]
# The scores (…) of samples of rows, each answered by a contestant of its own: (contestant of each row, row), both (…, rows)
Scorer = Callable[[Numbers, Numbers], Scores]

RESAMPLES = 2000  # the standard error of a 95 % bound is then about 0.5 percentage points of coverage
BLOCK = 2**16  # rows that are drawn and scored at once: all resamples of a short table, and some of a long one


def labels_scorer(truth: Sequence[str], answers: Sequence[Sequence[str]]) -> Scorer:
    """Weighted F1 of the labels that contestants gave."""
    codes = {name: code for code, name in enumerate(sorted({*truth, *(name for given in answers for name in given)}))}
    labels = np.array([codes[name] for name in truth])
    table = np.array([[codes[name] for name in given] for given in answers])

    def score(contestants: Numbers, rows: Numbers) -> Scores:
        return weighted_f1(labels[rows], table[contestants, rows], len(codes))

    return score


def label_sets_scorer(truth: Sequence[Collection[str]], answers: Sequence[Sequence[Collection[str]]]) -> Scorer:
    """Micro F1 of rows with any number of labels."""
    names = sorted({name for rows in (truth, *answers) for row in rows for name in row})
    counts = np.array([label_counts(names, truth, given) for given in answers])

    def score(contestants: Numbers, rows: Numbers) -> Scores:
        return count_f1(counts[contestants, rows].sum(-2))

    return score


def means_scorer(scores: Sequence[Sequence[float]]) -> Scorer:
    """The mean of per-row scores."""
    table = np.array(scores)

    def score(contestants: Numbers, rows: Numbers) -> Scores:
        means: Scores = table[contestants, rows].mean(-1)
        return means

    return score


def resample(score: Scorer, contestants: int, rows: int, seed: int = 0) -> Scores:
    """The scores of all contestants over the same resampled rows: (contestants, resamples)."""
    sides, random = np.arange(contestants)[:, np.newaxis], np.random.default_rng(seed)
    return np.hstack([[score(side, drawn) for side in sides] for drawn in _draw(random, rows, rows)])


def _draw(random: np.random.Generator, below: int, rows: int) -> Iterator[Numbers]:
    """A number below `below` for each row of each resample, in blocks: (resamples, rows)."""
    size = max(1, BLOCK // rows)
    for start in range(0, RESAMPLES, size):
        yield random.integers(0, below, (min(size, RESAMPLES - start), rows))


def interval(resampled: Scores) -> Interval:
    """The 95 % interval of a figure that was resampled (Efron and Tibshirani 1993, percentile method)."""
    low, high = np.quantile(resampled, [0.025, 0.975])
    return float(low), float(high)


def compare(score: Scorer, resampled: Scores, rows: int, other: int, adapter: int, seed: int = 0) -> Comparison:
    """The adapter minus another contestant: a paired bootstrap gives the interval, sign flips the p-value."""
    random = np.random.default_rng([seed, 1])
    sides, all_rows = np.array([other, adapter]), np.arange(rows)

    def difference(swap: Numbers) -> Scores:
        return score(sides[1 - swap], all_rows) - score(sides[swap], all_rows)

    delta = float(difference(np.zeros(rows, np.intp)))
    flips = np.concatenate([difference(drawn) for drawn in _draw(random, 2, rows)])
    as_large = int(np.count_nonzero(abs(flips) >= abs(delta) - 1e-12))
    # Add-one: a permutation p-value is never zero (Phipson and Smyth 2010).
    p_value = (as_large + 1) / (RESAMPLES + 1)
    # A single row has no spread to resample: its difference may be anything.
    bounds = interval(resampled[adapter] - resampled[other]) if rows > 1 else (-1.0, 1.0)
    return Comparison(delta, bounds, p_value)


def compare_means(base: Sequence[float], adapter: Sequence[float], seed: int = 0) -> Comparison:
    """Compare the means of per-row scores."""
    return compare_pair(means_scorer([base, adapter]), len(base), seed)


def compare_pair(score: Scorer, rows: int, seed: int = 0) -> Comparison:
    """Compare two contestants, the second of which is the adapter."""
    return compare(score, resample(score, 2, rows, seed), rows, 0, 1, seed)


def mcnemar(better: int, worse: int) -> float:
    """The two-sided p-value of McNemar's exact test.

    It asks whether the rows on which only one of two contestants is right are split evenly between them: the binomial
    test of McNemar 1947.

    Args:
        better: rows on which only the adapter is right.
        worse: rows on which only the other contestant is right.
    """
    differing = better + worse
    ways = tail = 1  # of `number` rows out of those that differ, and of at most as many
    for number in range(min(better, worse)):
        ways = ways * (differing - number) // (number + 1)
        tail += ways
    return min(1.0, float(2 * tail / 2**differing))
