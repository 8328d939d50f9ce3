"""Is a model right as often as its probabilities say? The expected calibration error and the bins behind it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from finetune.evaluate.details import Bin, Calibration

BINS = 10  # of equal width, of which each contains its upper bound: Guo et al. 2017, section 2


def calibrate(confidences: Sequence[float], right: Sequence[bool]) -> Calibration:
    """The mean distance between the probability of an answer and the share of right answers, weighted by rows per bin.

    Args:
        confidences: the probability of each row's answer, from 0 to 1.
        right: whether that answer is right.
    """
    sure, correct = np.array(confidences, float), np.array(right, float)
    numbers = np.clip(np.ceil(sure * BINS).astype(int) - 1, 0, BINS - 1)
    bins = []
    for number in sorted(set(numbers.tolist())):
        rows = numbers == number
        bins.append(
            Bin(
                number / BINS,
                (number + 1) / BINS,
                int(rows.sum()),
                float(sure[rows].mean()),
                float(correct[rows].mean()),
            )
        )
    ece = sum(one.n * abs(one.accuracy - one.confidence) for one in bins) / len(sure)
    return Calibration(float(ece), tuple(bins))
