"""What scores of members and controls prove: rates and areas with intervals, exact tests, and a lower bound on ε."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Interval = tuple[float, float]
FALSE_POSITIVES = 0.01  # share of controls that may be taken for members
CONFIDENCE = 0.95
Z = 1.959964  # of the normal distribution, for two sides of a 95 % interval
GUESSED = (1.0, 0.5, 0.25)  # shares of the canaries that the auditor guesses; the bound pays for trying all three


@dataclass(frozen=True)
class Separation:
    """How well a score tells members from controls, with 95 % intervals, and the p-values of both if it does not.

    `tpr` is the share of members above a threshold that at most 1 % of the controls exceed.
    """

    members: int
    controls: int
    tpr: float
    tpr_ci95: Interval
    tpr_p_value: float
    auc: float
    auc_ci95: Interval
    auc_p_value: float


def separate(members: Sequence[float], controls: Sequence[float]) -> Separation:
    """Compare the scores of members and controls; a score equal to the threshold does not exceed it."""
    allowed = int(FALSE_POSITIVES * len(controls))
    threshold = sorted(controls, reverse=True)[allowed]
    hits = sum(score > threshold for score in members)
    area, deviation = _area(members, controls)
    return Separation(
        members=len(members),
        controls=len(controls),
        tpr=hits / len(members),
        tpr_ci95=clopper_pearson(hits, len(members)),
        tpr_p_value=_chance_above(hits, allowed, len(members), len(controls)),
        auc=area,
        auc_ci95=_area_interval(area, len(members), len(controls)),
        auc_p_value=0.5 * math.erfc(deviation / math.sqrt(2)),
    )


def _chance_above(hits: int, allowed: int, members: int, controls: int) -> float:
    """Probability that as many members exceed all but `allowed` controls if both have the same distribution.

    That is: among the `hits + allowed` highest scores there are at most `allowed` controls, a hypergeometric tail.
    """
    top = hits + allowed
    ways = sum(math.comb(controls, few) * math.comb(members, top - few) for few in range(allowed + 1) if few <= top)
    return float(ways / math.comb(members + controls, top)) if hits else 1.0


def fisher(hits: int, tries: int, other_hits: int, other_tries: int) -> float:
    """One-sided p-value of Fisher's exact test: is the first rate higher than the second only by chance?"""
    total = hits + other_hits
    ways = sum(
        math.comb(tries, many) * math.comb(other_tries, total - many) for many in range(hits, min(tries, total) + 1)
    )
    return float(ways / math.comb(tries + other_tries, total)) if tries and other_tries else 1.0


# --- intervals --------------------------------------------------------------------------------------------------------


def clopper_pearson(hits: int, tries: int) -> Interval:
    """The exact 95 % interval of a share (Clopper and Pearson, 1934)."""
    tail = (1 - CONFIDENCE) / 2
    low = _solve(lambda share: binomial_tail(hits, tries, share) - tail, 0, 1) if hits else 0.0
    high = _solve(lambda share: tail - (1 - binomial_tail(hits + 1, tries, share)), 0, 1) if hits < tries else 1.0
    return low, high


def _area(members: Sequence[float], controls: Sequence[float]) -> tuple[float, float]:
    """The area under the ROC curve, and its distance from 1/2 in standard deviations (Mann and Whitney, 1947, with ties)."""
    scores = np.concatenate([members, controls])
    _, places, counts = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]  # ties share the mean of their ranks
    one, other, both = len(members), len(controls), len(scores)
    area = (float(ranks[:one].sum()) - one * (one + 1) / 2) / (one * other)
    ties = float((counts.astype(float) ** 3 - counts).sum()) / (both * (both - 1))
    variance = (both + 1 - ties) / (12 * one * other)
    return area, (area - 0.5) / math.sqrt(variance) if variance > 0 else 0.0


def _area_interval(area: float, members: int, controls: int) -> Interval:
    """The 95 % interval of an area under the ROC curve (Newcombe, 2006, Statistics in Medicine 25:559, method 5).

    Unlike most, it has a width where members and controls do not overlap at all.
    """
    spread = (members + controls) / 2 - 1

    def distance(true: float) -> float:
        bends = 1 + spread * ((1 - true) / (2 - true) + true / (1 + true))
        return Z * math.sqrt(max(true * (1 - true) * bends / (members * controls), 0.0))

    low = _solve(lambda true: true + distance(true) - area, 0, area) if area > 0 else 0.0
    high = _solve(lambda true: true - distance(true) - area, area, 1) if area < 1 else 1.0
    return low, high


def binomial_tail(hits: int, tries: int, share: float) -> float:
    """Probability of at least `hits` successes."""
    return float(_binomial(tries, share)[max(hits, 0) :].sum())


def _binomial(tries: int, share: float) -> NDArray[np.float64]:
    """Probabilities of 0 … `tries` successes."""
    if share in (0, 1):
        certain: NDArray[np.float64] = np.eye(tries + 1)[0 if share == 0 else tries]
        return certain
    counts = np.arange(tries + 1)
    logs = np.array([math.lgamma(count + 1) for count in counts])
    ways = logs[-1] - logs - logs[::-1]
    chances: NDArray[np.float64] = np.exp(ways + counts * math.log(share) + (tries - counts) * math.log1p(-share))
    return chances


def _solve(rising: Callable[[float], float], low: float, high: float) -> float:
    """Where a rising function is 0, by bisection to 2^-50 of the range."""
    for _ in range(50):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < 0 else (low, middle)
    return (low + high) / 2


# --- differential privacy ---------------------------------------------------------------------------------------------


def guess_p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Largest probability of `correct` right guesses if the training is (ε, δ)-private and fair coins chose what is planted.

    Steinke, Nasr and Jagielski, 2023, arXiv 2305.08846: without δ, the right guesses are at most as many as binomial ones that
    are each right with probability e^ε / (1 + e^ε); δ adds 2 · canaries · δ times the largest mean chance of the counts just
    below.
    """
    chances = _binomial(guesses, 1 / (1 + math.exp(-epsilon)))
    below = chances[:correct][::-1].cumsum()  # of being 1, at most 2, … right guesses short
    excess = float((below / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, float(chances[correct:].sum()) + 2 * canaries * delta * excess)


def epsilon_bound(scores: Sequence[float], planted: Sequence[bool], delta: float) -> tuple[float, float]:
    """The lower bound on ε with 95 % confidence, and the p-value of no privacy loss at all (ε = 0).

    The highest scores are guessed to be planted and as many of the lowest held out; the middle is not guessed.
    """
    order = np.argsort(scores, kind="stable")
    truth, level = np.array(planted)[order], (1 - CONFIDENCE) / len(GUESSED)
    bound, least = 0.0, 1.0
    for share in GUESSED:
        each = max(1, int(len(truth) * share / 2))
        correct = int(truth[-each:].sum() + (~truth[:each]).sum())
        tries = 2 * each, correct

        def excess(epsilon: float, tries: tuple[int, int] = tries) -> float:
            return guess_p_value(len(truth), *tries, epsilon, delta) - level

        least = min(least, excess(0.0) + level)
        if excess(0.0) < 0:
            bound = max(bound, _solve(excess, 0, 30))
    return bound, min(1.0, least * len(GUESSED))
