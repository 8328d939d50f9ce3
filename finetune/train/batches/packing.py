"""Rows of a batch → one sequence without padding, in which rows that begin alike share their beginning.

All rows of a classification task open with the same instruction. What a causal model computes for a token depends only
on the tokens before it, so that beginning is computed once for all rows of the batch: a tree of one trunk and many
branches instead of many rows. Values and gradients are those of the rows one by one; tests/train/test_packing.py
compares them. (The same idea for inference: Juravsky et al., Hydragen, arXiv 2402.05099.)
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.train.batches.rows import Row

UNSUPERVISED = -100  # the label that torch.nn.functional.cross_entropy ignores
SHORTEST_TRUNK = 8  # tokens; a shorter common beginning is not worth its own attention call
LONGEST_TO_SHORTEST = 1.5  # rows further apart in length are attended to separately, which bounds padding there


@dataclass(frozen=True)
class Branches:
    """Neighbouring rows of the packed sequence, of nearly one length, that continue the same trunk.

    Rows lie at `start` one after another; in attention each is padded to the longest.
    """

    trunk: tuple[int, int]  # where the common beginning lies; empty if start equals end
    start: int
    lengths: tuple[int, ...]
    gather: Tensor  # (rows * longest,) positions in the packed sequence; padding repeats a row's last token
    real: Tensor  # (tokens,) which of those are no padding

    @property
    def end(self) -> int:
        """Position after the last row."""
        return self.start + sum(self.lengths)

    def to(self, device: Any) -> Branches:
        """The same with its index tensors on `device`."""
        return Branches(self.trunk, self.start, self.lengths, self.gather.to(device), self.real.to(device))


@dataclass(frozen=True)
class Layout:
    """Which tokens of a packed sequence see which: its trunks and their branches, in the order in which they lie."""

    groups: tuple[tuple[Branches, ...], ...]  # the branches of one trunk, which lies before them

    def to(self, device: Any) -> Layout:
        """The same on `device`; accelerate calls this on every batch."""
        return Layout(tuple(tuple(branches.to(device) for branches in group) for group in self.groups))


@dataclass(frozen=True)
class Packed:
    """A packed batch; each tensor is (1, tokens)."""

    input_ids: Tensor
    position_ids: Tensor  # counted from the beginning of each row
    targets: Tensor  # the token that each position predicts, or UNSUPERVISED
    layout: Layout
    row_tokens: int  # tokens of all rows, shared beginnings counted for each


def pack(rows: Sequence[Row], *, share: bool = True) -> Packed:
    """Lay rows end to end; where `share`, rows that begin alike have that beginning once."""
    groups = _group(rows) if share else [(0, sorted(range(len(rows)), key=lambda row: len(rows[row].tokens)))]
    tokens: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    layout = []
    start = 0
    for trunk, members in groups:
        if trunk:
            tokens.append(rows[members[0]].tokens[:trunk])
            targets.append(np.full(trunk, UNSUPERVISED, dtype=np.int64))
            positions.append(np.arange(trunk))
        for member in members:
            row = rows[member]
            tokens.append(row.tokens[trunk:])
            targets.append(_targets(row)[trunk:])
            positions.append(np.arange(trunk, len(row.tokens)))
        lengths = [len(rows[member].tokens) - trunk for member in members]
        layout.append(_branches((start, start + trunk), lengths))
        start += trunk + sum(lengths)
    return Packed(
        torch.from_numpy(np.concatenate(tokens).astype(np.int64))[None],
        torch.from_numpy(np.concatenate(positions))[None],
        torch.from_numpy(np.concatenate(targets))[None],
        Layout(tuple(layout)),
        sum(len(row.tokens) for row in rows),
    )


def _targets(row: Row) -> NDArray[np.int64]:
    """What each position predicts: the next token where that is supervised."""
    following = np.where(row.supervised[1:], row.tokens[1:], UNSUPERVISED)
    return np.append(following, UNSUPERVISED).astype(np.int64)


def _group(rows: Sequence[Row]) -> list[tuple[int, list[int]]]:
    """Divide rows into groups with a common beginning, so that the fewest tokens remain: (shared tokens, rows).

    Sorted rows with a common beginning are neighbours, so the best division is found by going through them once and
    looking back (dynamic programming). A trunk ends before the position that predicts a row's first supervised token.
    """
    order = sorted(range(len(rows)), key=lambda row: rows[row].tokens.astype(">u4").tobytes())
    shareable = [int(np.argmax(rows[row].supervised[1:])) for row in order]
    neighbours = [_common(rows[a], rows[b]) for a, b in pairwise(order)]
    saved, cut = [0], [0]  # by the best division of the first n rows: tokens, and where its last group begins
    trunks = [0]
    for end in range(1, len(order) + 1):
        common, best = shareable[end - 1], (saved[end - 1], end - 1, 0)
        for start in range(end - 2, -1, -1):
            common = min(common, neighbours[start], shareable[start])
            if common < SHORTEST_TRUNK:
                break
            best = max(best, (saved[start] + common * (end - start - 1), start, common))
        saved.append(best[0])
        cut.append(best[1])
        trunks.append(best[2])
    groups = []
    end = len(order)
    while end:
        members = sorted(order[cut[end] : end], key=lambda row: (len(rows[row].tokens), row))
        groups.append((trunks[end], members))
        end = cut[end]
    alone = [member for trunk, members in groups if not trunk for member in members]
    together = [group for group in reversed(groups) if group[0]]
    return together + ([(0, sorted(alone, key=lambda row: (len(rows[row].tokens), row)))] if alone else [])


def _common(first: Row, second: Row) -> int:
    """Tokens that two rows begin with."""
    length = min(len(first.tokens), len(second.tokens))
    different = np.flatnonzero(first.tokens[:length] != second.tokens[:length])
    return int(different[0]) if len(different) else length


def _branches(trunk: tuple[int, int], lengths: Sequence[int]) -> tuple[Branches, ...]:
    """Cut rows in order of length where they grow too far apart."""
    parts: list[list[int]] = []
    for length in lengths:
        if not parts or length > LONGEST_TO_SHORTEST * parts[-1][0]:
            parts.append([])
        parts[-1].append(length)
    branches = []
    start = trunk[1]
    for part in parts:
        branches.append(_branch(trunk, start, part))
        start += sum(part)
    return tuple(branches)


def _branch(trunk: tuple[int, int], start: int, lengths: Sequence[int]) -> Branches:
    longest = max(lengths)
    starts = start + np.cumsum([0, *lengths[:-1]])
    within = np.arange(longest)[None]
    sizes = np.asarray(lengths)[:, None]
    gather = starts[:, None] + np.minimum(within, sizes - 1)
    real = np.flatnonzero((within < sizes).ravel())
    return Branches(trunk, start, tuple(lengths), torch.from_numpy(gather.ravel()), torch.from_numpy(real))
