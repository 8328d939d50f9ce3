"""Attention over packed rows: each token sees its own row's tokens before it and the prefix that its row continues.

Registered with transformers under `PACKED`, so that every architecture that takes its attention function from the
registry (`_supports_attention_backend`) can train on packed batches without specific code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from finetune.plan.memory import LONG_ROW
from finetune.train.batches.packing import Layout, Masks, Suffixes
from finetune.train.fast.cpu_attention import dot_product_attention

PACKED = "slmtune_packed"
# Rows of at least LONG_ROW + LONG_PREFIX · prefix tokens after their prefix attend without a mask; measured on a CPU with
# one thread, forward and backward: the mask costs 1.8 times as much for rows of 2048 tokens, and half as much for short ones.
LONG_PREFIX = 0.5


def register() -> None:
    """Register `attn_implementation=PACKED` with transformers, which then builds no mask itself."""
    AttentionInterface.register(PACKED, packed_attention)


def packed_attention(
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
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each row of a packed sequence.

    Args:
        query: (1, heads, tokens, width); key and value: (1, key heads, tokens, width).
        layout: the batch's, passed through the model's keyword arguments.
        sliding_window: number of tokens that a token sees, including itself.
        softcap: bound of the attention scores, applied with tanh (Gemma 2).
        dropout: 0, because rows would need masks of their own; `FastPath` packs no rows for models that ask for more.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    assert dropout == 0
    if key.shape[1] != query.shape[1] and (query.device.type != "cpu" or softcap is not None):
        # Only the CPU kernel shares key heads with any mask; on a GPU, sharing would select the slow kernel.
        repeats = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(repeats, 1), value.repeat_interleave(repeats, 1)
    options: dict[str, Any] = {
        "scaling": scaling,
        "window": sliding_window,
        "softcap": softcap,
        "masks": layout.masks,
    }
    # Split, not sliced: autograd joins the gradients of parts, where it would add tensors of full size for slices.
    parts = zip(*(tensor.split(layout.sizes, 2) for tensor in (query, key, value)), strict=True)
    pieces = []
    for group in layout.groups:
        # Copies, because parts would keep the queries and keys of all rows in memory until the backward pass.
        prefix = [tensor.clone() for tensor in next(parts)]
        if prefix[0].shape[2]:
            pieces.append(_attend(*prefix, seen=0, **options))
        pieces += [_attend_suffixes(prefix, next(parts), suffixes, **options) for suffixes in group]
    return torch.cat([piece.transpose(1, 2) for piece in pieces], 1), None


def _attend_suffixes(prefix: Sequence[Tensor], packed: Sequence[Tensor], suffixes: Suffixes, **options: Any) -> Tensor:
    """Attend within all rows of one prefix at once, each padded to the longest: (1, heads, tokens, width)."""
    rows = len(suffixes.lengths)
    padded = [pad_rows(tensor, suffixes) for tensor in packed]
    if prefix[0].shape[2]:
        padded[1:] = [
            torch.cat([shared.transpose(1, 2).expand(rows, -1, -1, -1), own.transpose(1, 2)], 1).transpose(1, 2)
            for shared, own in zip(prefix[1:], padded[1:], strict=True)
        ]
    return unpad_rows(_attend_after(prefix[0], *padded, **options), suffixes)


def pad_rows(packed: Tensor, rows: Suffixes) -> Tensor:
    """(1, heads, tokens, width) → (rows, heads, longest, width), each row padded with its last token."""
    if len(rows.lengths) == 1:
        return packed.clone()
    pad: Any = _Pad.apply
    padded: Tensor = pad(packed, rows.gather, rows.real, len(rows.lengths))
    return padded


def unpad_rows(padded: Tensor, rows: Suffixes) -> Tensor:
    """The inverse of `pad_rows`."""
    if len(rows.lengths) == 1:
        return padded
    unpad: Any = _Unpad.apply
    packed: Tensor = unpad(padded, rows.real)
    return packed


def _attend_after(prefix: Tensor, query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """Causal attention of queries that follow a prefix, whose queries are (1, heads, seen, width).

    For long rows the kernel without a mask is faster even though it attends from the prefix once more for each row.
    """
    seen, tokens, keys = prefix.shape[2], query.shape[2], key.shape[2]
    window = options["window"]
    masked = options["softcap"] is not None or (window is not None and window < keys)
    if masked or not seen or tokens < LONG_ROW + seen * LONG_PREFIX:
        return _attend(query, key, value, seen=seen, **options)
    whole = torch.cat([prefix.expand(len(query), -1, -1, -1), query], 2)
    return _attend(whole, key, value, seen=0, **options)[:, :, seen:]


def _attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    seen: int,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
    masks: Masks,
) -> Tensor:
    """Causal attention with `seen` keys before the first query; every tensor is (rows, heads, tokens, width).

    Padding needs no mask: it follows a row's last token, where causal queries never look.
    """
    tokens, keys = query.shape[2], key.shape[2]
    bounded = window if window is not None and window < keys else None
    shared = query.shape[1] != key.shape[1]
    if softcap is None and not seen and bounded is None:
        return dot_product_attention(query, key, value, is_causal=tokens > 1, scale=scaling, enable_gqa=shared)
    mask = _find_mask(masks, query, keys, bounded)
    if softcap is None:
        return dot_product_attention(query, key, value, attn_mask=mask, scale=scaling, enable_gqa=shared)
    scores = query @ key.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + mask
    return torch.softmax(scores, -1, dtype=torch.float32).to(value.dtype) @ value


def _find_mask(masks: Masks, query: Tensor, keys: int, window: int | None) -> Tensor:
    """(tokens, keys), 0 where a query sees a key and else -inf; the queries are at the end of the keys.

    All layers share the mask of a batch: autograd would keep one each, as large as `tokens × keys`.
    """
    tokens = query.shape[2]
    kind = (tokens, keys, window)
    if kind not in masks:
        places = torch.arange(keys, device=query.device)
        distance = places[keys - tokens :, None] - places[None]
        hidden = distance < 0 if window is None else (distance < 0) | (distance >= window)
        masks[kind] = query.new_zeros(tokens, keys).masked_fill_(hidden, -math.inf)
    return masks[kind]


class _Pad(torch.autograd.Function):
    """(1, heads, tokens, width) → (rows, heads, longest, width).

    The backward pass is a gather too, where autograd would accumulate: every token has exactly one position that is not
    padding, and padding has no gradient. Tokens are moved with all their heads, which are neighbours in memory.
    """

    @staticmethod
    def forward(ctx: Any, packed: Tensor, gather: Tensor, real: Tensor, rows: int) -> Tensor:
        ctx.save_for_backward(real)
        padded = packed[0].transpose(0, 1).index_select(0, gather)
        return padded.view(rows, -1, *padded.shape[1:]).transpose(1, 2)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None, None]:
        (real,) = ctx.saved_tensors
        (gradient,) = gradients
        return gradient.transpose(1, 2).flatten(0, 1).index_select(0, real).transpose(0, 1)[None], None, None, None


class _Unpad(torch.autograd.Function):
    """(rows, heads, longest, width) → (1, heads, tokens, width); the inverse of `_Pad`."""

    @staticmethod
    def forward(ctx: Any, padded: Tensor, real: Tensor) -> Tensor:
        ctx.save_for_backward(real)
        ctx.rows, ctx.tokens = len(padded), len(padded) * padded.shape[2]
        return padded.transpose(1, 2).flatten(0, 1).index_select(0, real).transpose(0, 1)[None]

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (real,) = ctx.saved_tensors
        (gradient,) = gradients
        _, heads, _, width = gradient.shape
        result = gradient.new_zeros(ctx.tokens, heads, width).index_copy_(0, real, gradient[0].transpose(0, 1))
        return result.unflatten(0, (ctx.rows, -1)).transpose(1, 2), None
