"""Attention over packed rows that each end in a tree of answers: a token sees the tokens before it on its own branch.

Registered with transformers under `TREE`, so that every architecture that takes its attention function from the registry
(`_supports_attention_backend`) can compute all answers in one pass without specific code. (The mask is that of
Miao et al., SpecInfer, 2023, arXiv 2305.09781.)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

TREE = "slmtune_tree"
LONGEST_TO_SHORTEST = 1.5  # rows whose lengths differ more are attended to separately, which limits padding


@dataclass(frozen=True)
class Rows:
    """Neighbouring rows of similar length; for attention, each is padded to the longest.

    Args:
        gather: (rows · longest,) positions in the packed sequence; padding repeats a row's first token.
        real: the positions in it that are not padding.
        visible: (rows, longest, longest), which tokens of its row each token sees.
        positions: (rows, longest), counted from the beginning of the prompt.
    """

    gather: Tensor
    real: Tensor
    visible: Tensor
    positions: Tensor


@dataclass(frozen=True)
class Layout:
    """Which tokens of a packed sequence see which: their own row's, after those of a prefix that all rows share.

    Args:
        prefix: the number of tokens of the prefix that earlier passes computed.
        states: the keys and values of the prefix by layer; a pass with `keep` puts its own there.
    """

    groups: tuple[Rows, ...]
    prefix: int
    states: dict[nn.Module, tuple[Tensor, Tensor]]
    keep: bool = False
    masks: dict[tuple[int, int | None], Tensor] = field(default_factory=dict, compare=False)  # made by the first layer

    def find_mask(self, number: int, window: int | None, like: Tensor) -> Tensor:
        """(rows, 1, longest, prefix + longest) for a group, 0 where a token sees another and else -inf."""
        kind = (number, window)
        if kind not in self.masks:
            rows = self.groups[number]
            count, longest = rows.positions.shape
            before = torch.arange(self.prefix, device=like.device).expand(count, -1)
            places = torch.cat([before, rows.positions], 1)
            visible = torch.cat([rows.visible.new_ones(count, longest, self.prefix), rows.visible], 2)
            if window is not None:
                visible = visible & (rows.positions[:, :, None] - places[:, None] < window)
            self.masks[kind] = like.new_zeros(visible.shape).masked_fill_(~visible, -math.inf)[:, None]
        return self.masks[kind]


def register() -> None:
    """Register `attn_implementation=TREE` with transformers, which then builds no mask itself."""
    AttentionInterface.register(TREE, tree_attention)


def lay_out(rows: Sequence[tuple[NDArray[np.bool_], NDArray[np.int64]]], device: Any) -> tuple[Rows, ...]:
    """Rows of a packed sequence, sorted by length, each with which tokens see which and with their positions."""
    groups: list[list[int]] = []
    for number, (_, positions) in enumerate(rows):
        if not groups or max(len(rows[groups[-1][0]][1]), 1) > LONGEST_TO_SHORTEST * len(positions):
            groups.append([])
        groups[-1].append(number)
    laid, start = [], 0
    for group in groups:
        members = [rows[number] for number in group]
        laid.append(_pad_rows(members, start, device))
        start += sum(len(positions) for _, positions in members)
    return tuple(laid)


def _pad_rows(rows: Sequence[tuple[NDArray[np.bool_], NDArray[np.int64]]], start: int, device: Any) -> Rows:
    longest = max(len(positions) for _, positions in rows)
    gather = np.zeros((len(rows), longest), np.int64)
    places = np.zeros((len(rows), longest), np.int64)
    visible = np.zeros((len(rows), longest, longest), np.bool_)
    visible[:, :, 0] = True  # padding sees something, so that nothing is NaN
    real = []
    for number, (sees, positions) in enumerate(rows):
        size = len(positions)
        gather[number] = start
        gather[number, :size] += np.arange(size)
        places[number, :size] = positions
        places[number, size:] = positions[0]
        visible[number, :size, :size] = sees
        real.append(number * longest + np.arange(size))
        start += size
    tensors = (gather.ravel(), np.concatenate(real), visible, places)
    return Rows(*(torch.from_numpy(tensor).to(device) for tensor in tensors))


def tree_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each row of a packed sequence, and to the prefix.

    Args:
        query: (1, heads, tokens, width); key and value: (1, key heads, tokens, width).
        layout: the batch's, passed through the model's keyword arguments.
        sliding_window: number of tokens that a token sees, including itself.
        softcap: bound of the attention scores, applied with tanh (Gemma 2).

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    if layout.keep:
        layout.states[module] = key, value
    pieces = []
    for number, rows in enumerate(layout.groups):
        count = len(rows.positions)
        queries, keys, values = (_pad(tensor, rows, count) for tensor in (query, key, value))
        if layout.prefix:
            keys, values = (
                torch.cat([before.expand(count, -1, -1, -1), own], 2)
                for before, own in zip(layout.states[module], (keys, values), strict=True)
            )
        mask = layout.find_mask(number, sliding_window, query)
        attended = _attend(queries, keys, values, mask, scaling, softcap)
        pieces.append(attended.transpose(0, 1).flatten(1, 2).index_select(1, rows.real))
    return torch.cat(pieces, 1).transpose(0, 1)[None], None


def _pad(packed: Tensor, rows: Rows, count: int) -> Tensor:
    """(1, heads, tokens, width) → (rows, heads, longest, width)."""
    heads, width = packed.shape[1], packed.shape[3]
    return packed[0].index_select(1, rows.gather).view(heads, count, -1, width).transpose(0, 1)


def _attend(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor, scaling: float | None, softcap: float | None
) -> Tensor:
    repeats = query.shape[1] // key.shape[1]
    if repeats > 1 and (query.device.type != "cpu" or softcap is not None):
        # Only the CPU kernel shares key heads with any mask.
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    if softcap is None:
        shared = query.shape[1] != key.shape[1]
        return scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=shared)
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + mask
    return torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype) @ value
