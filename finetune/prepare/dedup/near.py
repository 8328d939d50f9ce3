"""Finds near-duplicates among millions of rows by their MinHash signatures, without comparing all pairs."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from finetune.prepare.dedup.signature import NUM_PERM, multipliers

RowNumbers = npt.NDArray[np.int64]
Columns = npt.NDArray[np.unsignedinteger]
Hashes = npt.NDArray[np.uint64]

# Kept rows remembered per bucket, in order of rank. Only buckets for the words of a template, which thousands of
# different rows share, would hold more; a near-duplicate of one of those rows also shares other buckets with it. So a
# row is compared with at most (bands × PIVOTS) others, and time is linear in the number of rows in every case.
PIVOTS = 8
_NARROWEST = 4  # columns per band: with fewer, dissimilar rows share bands
MOST_BANDS = NUM_PERM // _NARROWEST
_SLICE = 1 << 12  # rows at a time: 4 MiB if a column takes 8 bytes


@dataclass(frozen=True, slots=True)
class NearDuplicates:
    """For every row, the kept row that it repeats, or -1 if the row itself is kept, and their similarity.

    keeper: (rows,) int64. similarity: (rows,) float32, the estimated Jaccard index, 0 for kept rows.
    """

    keeper: RowNumbers
    similarity: npt.NDArray[np.float32]


def near_duplicates(
    signatures: Columns, guards: npt.NDArray[np.uint64], rank: npt.NDArray[np.number], threshold: float
) -> NearDuplicates:
    """Go through the rows by ascending `rank`, with ties in the given order, and drop each row similar to a kept row.

    Two rows are similar if at least `threshold` of the columns of their signatures agree and their guards are equal. A
    dropped row refers to the first similar kept row. The result is that of comparing all pairs, up to PIVOTS.

    Args:
        signatures: (rows, columns) from `sign`; from a memory map, only slices and single rows are read.
        guards: (rows,) from `guard`; rows that must never be compared can be given different values.
        rank: (rows,) lower is better.
        threshold: values from 0.76 find every pair; see `_bands` for what lower values miss.
    """
    signatures = np.asarray(signatures)  # indexing a memory map is slow
    rows, columns = signatures.shape
    agreeing = _agreeing(columns, threshold)
    order = np.argsort(rank, kind="stable")  # from here on, rows are identified by their position in it
    buckets, leader = _buckets(signatures, guards, order, _bands(columns, agreeing))
    leads = leader == np.arange(rows)  # no earlier row shares a bucket with these: they are kept
    keeper = np.full(rows, -1, np.int64)

    # Most repeats share buckets only with the row that they repeat: handle all of these at once.
    led = np.flatnonzero(~leads & leads[leader])
    led = led[_agreement(signatures, guards, order[led], order[leader[led]]) >= agreeing]
    keeper[order[led]] = order[leader[led]]

    kept = _KeptRows(buckets, np.flatnonzero(leads))
    leads[led] = True
    for position in np.flatnonzero(~leads).tolist():
        others = order[kept.among(position)]
        like = _agreement(signatures, guards, np.broadcast_to(order[position], others.shape), others) >= agreeing
        if like.any():
            keeper[order[position]] = others[like.argmax()]
        else:
            kept.add(position)

    similarity = np.zeros(rows, np.float32)
    dropped = np.flatnonzero(keeper >= 0)
    similarity[dropped] = _agreement(signatures, guards, dropped, keeper[dropped]) / columns
    return NearDuplicates(keeper, similarity)


def clusters(keeper: RowNumbers) -> Iterator[tuple[int, list[int]]]:
    """Each kept row that has repeats, with its repeats, in order."""
    dropped = np.flatnonzero(keeper >= 0)
    if not len(dropped):
        return
    ordered = dropped[np.argsort(keeper[dropped], kind="stable")]
    kept, starts = np.unique(keeper[ordered], return_index=True)
    for row, members in zip(kept.tolist(), np.split(ordered, starts[1:]), strict=True):
        yield row, members.tolist()


def _agreement(signatures: Columns, guards: npt.NDArray[np.uint64], left: RowNumbers, right: RowNumbers) -> RowNumbers:
    """The number of columns that agree for each pair of rows, 0 if their guards differ."""
    agree = np.empty(len(left), np.int64)
    for begin in range(0, len(left), _SLICE):
        part = slice(begin, begin + _SLICE)
        np.sum(signatures[left[part]] == signatures[right[part]], axis=1, out=agree[part])
    agree[guards[left] != guards[right]] = 0
    return agree


def _bands(columns: int, agreeing: int) -> list[int]:
    """The start of each band of columns, chosen so that similar rows agree in all columns of at least one band.

    With one band more than the columns that may differ, one is whole: 26 bands of 5 (two of 4) for 103 of 128. A pair
    that is not alike shares a band with 1-(1-J^5)^26: 0.06 at J = 0.3, 0.56 at 0.5, 0.99 at 0.7. Below a threshold of
    0.76 that would take too narrow bands; there 32 of 4 find 1-(1-J^4)^32 of the pairs: 0.9998 at J = 0.7, 0.988 at
    0.6, 0.87 at 0.5.
    """
    count = min(columns - agreeing + 1, max(columns // _NARROWEST, 1))
    return [number * columns // count for number in range(count)]


def hash_bands(signatures: Columns, guards: npt.NDArray[np.uint64], threshold: float) -> Hashes:
    """(bands, rows): a hash of each band of columns and of the guard, of which `near_duplicates` uses the upper half."""
    signatures = np.asarray(signatures)
    rows, columns = signatures.shape
    bands = _bands(columns, _agreeing(columns, threshold))
    table = np.empty((len(bands), rows), np.uint64)
    for part, hashes in _hash_slices(signatures, guards, bands):
        table[:, part] = hashes
    return table


def rows_sharing(hashes: Hashes, rows: RowNumbers) -> RowNumbers:
    """Those of the `rows` that matter to `near_duplicates` because of one band, whose hashes have the shape (rows,).

    What it finds among the rows that matter because of any band, it finds among all rows. Others agree with another row at
    most by chance, in half of the hash; then that row is not similar, or below a threshold of 0.76 would be found only by
    chance. In a bucket of more than PIVOTS rows, however, they count: kept ones take the place of others.
    """
    order = np.argsort(hashes, kind="stable")
    ordered = hashes[order]
    equal = np.diff(ordered) == 0
    matters = np.zeros(len(order), np.bool_)
    matters[1:] |= equal
    matters[:-1] |= equal
    _, bucket, sizes = np.unique(ordered >> np.uint64(32), return_inverse=True, return_counts=True)
    found: RowNumbers = rows[order[matters | (sizes[bucket] > PIVOTS)]]
    return found


def _hash_slices(
    signatures: Columns, guards: npt.NDArray[np.uint64], bands: list[int]
) -> Iterator[tuple[slice, Hashes]]:
    """Slices of the rows, and their hashes: (bands, rows of the slice)."""
    factors = multipliers(0, signatures.shape[1])
    for begin in range(0, len(signatures), _SLICE):
        part = slice(begin, begin + _SLICE)
        sums = np.add.reduceat(signatures[part] * factors, bands, axis=1) + guards[part, None] * factors[0]
        yield part, ((sums ^ (sums >> np.uint64(29))) * factors[-1]).T


def _agreeing(columns: int, threshold: float) -> int:
    """The number of columns in which similar rows agree at least."""
    return math.ceil(threshold * columns - 1e-9)


def _buckets(
    signatures: Columns, guards: npt.NDArray[np.uint64], order: RowNumbers, bands: list[int]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """(bands, positions): the bucket that a row shares with others, or -1; (positions,): the first of all those rows.

    Rows share a bucket where their hashes of a band and the guard agree. 32 bits suffice: of a million rows a hundred
    pairs per band agree by chance, and they are compared all the same.
    """
    rows = len(signatures)
    table = np.empty((len(bands), rows), np.uint32)
    for part, hashes in _hash_slices(signatures, guards, bands):
        table[:, part] = hashes >> np.uint64(32)
    leader = np.arange(rows, dtype=np.int32)
    used = 0
    for band in table:
        packed = np.sort(band[order].astype(np.uint64) << np.uint64(32) | np.arange(rows, dtype=np.uint64))
        positions = (packed & np.uint64(0xFFFFFFFF)).astype(np.int32)
        starts = np.flatnonzero(np.diff(packed >> np.uint64(32), prepend=~packed[:1]))
        sizes = np.diff(starts, append=rows)
        first = np.repeat(positions[starts], sizes)
        leader[positions] = np.minimum(leader[positions], first)
        numbers = np.where(sizes > 1, np.cumsum(sizes > 1) + (used - 1), -1)
        used = max(used, int(numbers.max(initial=-1)) + 1)
        band.view(np.int32)[positions] = np.repeat(numbers, sizes)
    return table.view(np.int32), leader


class _KeptRows:
    """The first PIVOTS kept rows of each bucket, by position.

    Nearly every bucket has one at most, in `_first`, or -1; where there are more, -2-n leads to the n-th of `_lists`.
    """

    def __init__(self, buckets: npt.NDArray[np.int32], leads: RowNumbers) -> None:
        self._buckets = buckets
        self._first = np.full(int(buckets.max(initial=-1)) + 1, -1, np.int32)
        self._lists: list[list[int]] = []
        for band in buckets:
            shared = leads[band[leads] >= 0]
            self._first[band[shared]] = shared  # no two leads share a bucket

    def among(self, position: int) -> list[int]:
        """The kept rows that share a bucket with this one, in order."""
        candidates = set(self._first[self._of(position)].tolist())
        candidates.discard(-1)
        for number in [number for number in candidates if number < 0]:
            candidates.remove(number)
            candidates.update(self._lists[-2 - number])
        return sorted(candidates)

    def add(self, position: int) -> None:
        """Remember a kept row that comes after all others."""
        for bucket in self._of(position).tolist():
            number = int(self._first[bucket])
            if number == -1:
                self._first[bucket] = position
            elif number >= 0:
                self._first[bucket] = -2 - len(self._lists)
                self._lists.append([number, position])
            elif len(self._lists[-2 - number]) < PIVOTS:
                self._lists[-2 - number].append(position)

    def _of(self, position: int) -> npt.NDArray[np.int32]:
        numbers = self._buckets[:, position]
        return numbers[numbers >= 0]
