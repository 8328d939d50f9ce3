"""Rows of a batch → one sequence without padding, in which rows share their common prefixes.

All rows of a classification task begin with the same instruction. What a causal model computes for a token depends only
on the tokens before it, so the prefix is computed once for all rows of the batch, followed by their suffixes. Values and
gradients equal those of single rows; tests/train/test_packing.py compares them. (The same idea for inference:
Juravsky et al., Hydragen, arXiv 2402.05099.)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from finetune.train.batches.rows import SHORTEST_PREFIX, TokenRow

UNSUPERVISED = -100  # the label that torch.nn.functional.cross_entropy ignores
Masks = dict[tuple[int, int, int | None], Tensor]  # by the numbers of queries and keys, and the sliding window
LONGEST_TO_SHORTEST = 1.5  # rows whose lengths differ more are attended to separately, which limits padding


@dataclass(frozen=True)
class Suffixes:
    """Neighbouring rows of the packed sequence, of similar length, that continue the same prefix.

    The rows follow one another from `start`; for attention, each is padded to the longest.
    """

    prefix: tuple[int, int]  # start and end of the common prefix; empty if they are equal
    start: int
    lengths: tuple[int, ...]
    gather: Tensor  # (rows * longest,) positions from `start`; padding repeats a row's last token
    real: Tensor  # (tokens,) the places in it that are not padding

    @property
    def end(self) -> int:
        """Position after the last row."""
        return self.start + sum(self.lengths)

    def to(self, device: Any) -> Suffixes:
        """These suffixes with their index tensors on `device`."""
        return Suffixes(self.prefix, self.start, self.lengths, self.gather.to(device), self.real.to(device))


@dataclass(frozen=True)
class Layout:
    """Which tokens of a packed sequence see which: its prefixes and their suffixes, in order."""

    groups: tuple[tuple[Suffixes, ...], ...]  # each the suffixes of one prefix, which precedes them
    masks: Masks = field(default_factory=dict, compare=False)  # of attention, made by the first layer for all others

    def to(self, device: Any) -> Layout:
        """This layout on `device`; accelerate calls this on every batch."""
        return Layout(tuple(tuple(suffixes.to(device) for suffixes in group) for group in self.groups))

    @cached_property
    def sizes(self) -> list[int]:
        """The tokens of each prefix and of the suffixes that follow it, in the order of the sequence."""
        pieces = ([(*group[0].prefix,), *((part.start, part.end) for part in group)] for group in self.groups)
        return [end - start for group in pieces for start, end in group]

    def rows(self) -> Iterator[NDArray[np.int64]]:
        """The positions of each row's tokens in the packed sequence, those of its prefix first."""
        for suffixes in (suffixes for group in self.groups for suffixes in group):
            ends = suffixes.start + np.cumsum(suffixes.lengths)
            for end, length in zip(ends, suffixes.lengths, strict=True):
                yield np.concatenate([np.arange(*suffixes.prefix), np.arange(end - length, end)])


@dataclass(frozen=True)
class PackedRows:
    """A packed batch; each tensor is (1, tokens)."""

    input_ids: Tensor
    position_ids: Tensor  # counted from the beginning of each row
    targets: Tensor  # the token that each position predicts, or UNSUPERVISED
    layout: Layout
    order: tuple[int, ...]  # the numbers of the rows, in the order of their suffixes


def pack(rows: Sequence[TokenRow], *, share: bool = True) -> PackedRows:
    """Concatenate rows; with `share`, a common prefix appears only once."""
    groups = _group_by_prefix(rows) if share else [(0, sorted(range(len(rows)), key=lambda row: len(rows[row].tokens)))]
    tokens: list[NDArray[np.int32]] = []
    targets: list[NDArray[np.int64]] = []
    positions: list[NDArray[np.int64]] = []
    layout = []
    start = 0
    for prefix, members in groups:
        tokens.append(rows[members[0]].tokens[:prefix])
        targets.append(np.full(prefix, UNSUPERVISED, dtype=np.int64))
        positions.append(np.arange(prefix))
        for member in members:
            row = rows[member]
            tokens.append(row.tokens[prefix:])
            targets.append(_targets(row)[prefix:])
            positions.append(np.arange(prefix, len(row.tokens)))
        lengths = [len(rows[member].tokens) - prefix for member in members]
        layout.append(divide_by_length((start, start + prefix), lengths))
        start += prefix + sum(lengths)
    return PackedRows(
        torch.from_numpy(np.concatenate(tokens).astype(np.int64))[None],
        torch.from_numpy(np.concatenate(positions))[None],
        torch.from_numpy(np.concatenate(targets))[None],
        Layout(tuple(layout)),
        tuple(member for _, members in groups for member in members),
    )


def _targets(row: TokenRow) -> NDArray[np.int64]:
    """The target of each position: the next token, if that is supervised."""
    following = np.where(row.supervised[1:], row.tokens[1:], UNSUPERVISED)
    return np.append(following, UNSUPERVISED).astype(np.int64)


def _group_by_prefix(rows: Sequence[TokenRow]) -> list[tuple[int, list[int]]]:
    """Divide rows into groups with a common prefix so that the fewest tokens remain: (shared tokens, rows).

    In sorted order, rows with a common prefix are neighbours, so one pass of dynamic programming finds the best
    division.
    """
    order = sorted(range(len(rows)), key=lambda row: rows[row].tokens.astype(">u4").tobytes())
    shareable = [rows[row].shareable for row in order]
    neighbours = [rows[a].count_common_prefix(rows[b]) for a, b in pairwise(order)]
    saved, cut = [0], [0]  # for the best division of the first n rows: tokens saved, start of the last group
    prefixes = [0]
    for end in range(1, len(order) + 1):
        common, best = shareable[end - 1], (saved[end - 1], end - 1, 0)
        for start in range(end - 2, -1, -1):
            common = min(common, neighbours[start], shareable[start])
            if common < SHORTEST_PREFIX:
                break
            best = max(best, (saved[start] + common * (end - start - 1), start, common))
        saved.append(best[0])
        cut.append(best[1])
        prefixes.append(best[2])
    groups = []
    end = len(order)
    while end:
        members = sorted(order[cut[end] : end], key=lambda row: (len(rows[row].tokens), row))
        groups.append((prefixes[end], members))
        end = cut[end]
    alone = [member for prefix, members in groups if not prefix for member in members]
    together = [group for group in reversed(groups) if group[0]]
    return together + ([(0, sorted(alone, key=lambda row: (len(rows[row].tokens), row)))] if alone else [])


def divide_by_length(prefix: tuple[int, int], lengths: Sequence[int]) -> tuple[Suffixes, ...]:
    """Divide the suffixes of a prefix, sorted by length, wherever their lengths differ too much."""
    parts: list[list[int]] = []
    for length in lengths:
        if not parts or length > LONGEST_TO_SHORTEST * parts[-1][0]:
            parts.append([])
        parts[-1].append(length)
    divided = []
    start = prefix[1]
    for part in parts:
        divided.append(index_rows(prefix, start, part))
        start += sum(part)
    return tuple(divided)


def index_rows(prefix: tuple[int, int], start: int, lengths: Sequence[int]) -> Suffixes:
    """Rows that follow one another from `start`."""
    longest = max(lengths)
    starts = np.cumsum([0, *lengths[:-1]])
    within = np.arange(longest)[None]
    sizes = np.asarray(lengths)[:, None]
    gather = starts[:, None] + np.minimum(within, sizes - 1)
    real = np.flatnonzero((within < sizes).ravel())
    return Suffixes(prefix, start, tuple(lengths), torch.from_numpy(gather.ravel()), torch.from_numpy(real))
