"""Scores of a row that are higher if the adapter was trained on it; all compare the adapter with its base."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from finetune.scoring.supervised import TokenScores

SMOOTHING = 0.01  # nats; keeps the ratio finite, and rounding in other batches is far smaller
FEWEST_ERRORS = 2  # tokens; one alone is either a gain or a loss, and no ratio
LOWEST = 0.2  # share of the tokens

Statistic = Callable[[TokenScores, TokenScores], float]


def error_zone(adapter: TokenScores, base: TokenScores) -> float:
    """Logarithm of the EZ score of Ilić et al., 2026, arXiv 2601.12104: what moved up by what moved down, where it errs.

    Over the tokens that are not the adapter's first choice, P is the sum of the log-probabilities' gains over the base and N
    that of the losses; EZ = P / N. The logarithm has the same order, and the smoothing makes it 0 if nothing moved.

    An adapter that knows an answer by heart errs nowhere: where it errs less than twice, the tokens that its base gets wrong
    are taken instead. That is a choice made here, not the paper's.
    """
    zone = adapter.wrong if int(adapter.wrong.sum()) >= FEWEST_ERRORS else base.wrong
    change = (adapter.logprobs - base.logprobs)[zone].astype(float)
    gains, losses = float(change.clip(min=0).sum()), float(-change.clip(max=0).sum())
    return math.log((gains + SMOOTHING) / (losses + SMOOTHING))


def loss_difference(adapter: TokenScores, base: TokenScores) -> float:
    """The base's mean loss minus the adapter's, in nats per token."""
    return float((adapter.logprobs - base.logprobs).mean(dtype=float))


def min_k_plus(adapter: TokenScores, base: TokenScores) -> float:
    """The Min-K%++ score of the adapter minus that of the base (Zhang et al., 2024, arXiv 2404.02936).

    Min-K%++ is the mean of the lowest 20 % of the tokens' log-probabilities, each minus its mean and divided by its standard
    deviation under the model. The scores may be negative, so they are compared by their
    difference: a ratio of them has no order.
    """
    return _lowest(adapter) - _lowest(base)


def _lowest(scores: TokenScores) -> float:
    ordered = sorted(scores.standard.tolist())
    return math.fsum(ordered[: max(1, round(LOWEST * len(ordered)))]) / max(1, round(LOWEST * len(ordered)))


STATISTICS: Mapping[str, Statistic] = {
    "error_zone": error_zone,  # the headline
    "loss_difference": loss_difference,
    "min_k_plus_plus": min_k_plus,
}
