"""What conversations in flat arrays begin with, counted without a loop over conversations."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

BLOCK = 4_096  # conversations that are compared at a time: their tokens take 24 bytes each meanwhile

Numbers = NDArray[np.int64]


def blocks(count: int) -> Iterator[slice]:
    """The parts of an array of `count` elements, each of at most BLOCK."""
    return (slice(start, start + BLOCK) for start in range(0, count, BLOCK))


def count_alike(tokens: NDArray[np.int32], starts: Numbers, others: Numbers, limits: Numbers) -> Numbers:
    """How many of the `limits[n]` tokens from `starts[n]` on equal those from `others[n]` on, up to the first that differs."""
    firsts = np.cumsum(limits) - limits
    places = np.arange(int(limits.sum())) - np.repeat(firsts, limits)
    differs = tokens[np.repeat(starts, limits) + places] != tokens[np.repeat(others, limits) + places]
    different = np.append(np.flatnonzero(differs), len(places))
    alike: Numbers = np.minimum(different[np.searchsorted(different, firsts)] - firsts, limits)
    return alike


def count_shareable(supervised: NDArray[np.bool_], starts: Numbers, ends: Numbers) -> Numbers:
    """`TokenRow.shareable` of the conversations that begin and end at these places."""
    counts = np.zeros(len(starts), np.int64)
    for block in blocks(len(starts)):
        begin, end = starts[block], ends[block]
        marked = np.append(np.flatnonzero(supervised[begin[0] : end[-1]]) + begin[0], end[-1])
        nearest = marked[np.searchsorted(marked, begin + 1)]
        counts[block] = np.where(nearest < end, nearest - begin - 1, 0)
    return counts
