"""Attention over packed rows of an encoder: each token sees all tokens of its own row.

Registered with transformers under `PACKED`. After the last layer the rows are unpacked, so that the model's own code
computes everything above it: pooling, head and logits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AttentionInterface

from finetune.train.batches.encoder_batches import EncoderLayout
from finetune.train.batches.packing import Suffixes
from finetune.train.fast.cpu_attention import dot_product_attention
from finetune.train.fast.prefix_attention import pad_rows, unpad_rows

PACKED = "slmtune_packed_encoder"


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
    layout: EncoderLayout,
    scaling: float | None = None,
    sliding_window: int | None = None,
    dropout: float = 0.0,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each row of a packed sequence.

    Args:
        query: (1, heads, tokens, width), as key and value.
        layout: the batch's, passed through the model's keyword arguments.
        sliding_window: a token sees those that are fewer than this many tokens away, on both sides.
        dropout: share of the attention weights that are dropped.

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    sizes = [part.end - part.start for part in layout.parts]
    pieces = []
    for part, *packed in zip(layout.parts, *(tensor.split(sizes, 2) for tensor in (query, key, value)), strict=True):
        q, k, v = (pad_rows(tensor, part) for tensor in packed)
        mask = _find_mask(layout, part, query, sliding_window)
        if dropout:
            attended = nn.functional.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scaling)
        else:
            attended = dot_product_attention(q, k, v, attn_mask=mask, scale=scaling)
        pieces.append(unpad_rows(attended, part).transpose(1, 2))
    return torch.cat(pieces, 1), None


def unpack(module: nn.Module, inputs: tuple[Any, ...], options: dict[str, Any], output: Tensor) -> Tensor:
    """A forward hook of the last layer: (1, tokens, width) → (rows, longest, width); padding repeats a row's last token."""
    layout: EncoderLayout | None = options.get("layout")
    if layout is None:
        return output
    return output[0].index_select(0, layout.whole.gather).view(len(layout.whole.lengths), -1, output.shape[-1])


def _find_mask(layout: EncoderLayout, part: Suffixes, query: Tensor, window: int | None) -> Tensor | None:
    """(rows, 1, tokens or 1, keys), 0 where a query sees a key and else -inf; None if all see all.

    Every token sees itself, padding too, so that no value is undefined. All layers share the mask.
    """
    longest = max(part.lengths)
    bounded = window if window is not None and window < longest else None
    if bounded is None and min(part.lengths) == longest:
        return None
    kind = (part.start, longest, bounded)
    if kind not in layout.masks:
        places = torch.arange(longest, device=query.device)
        lengths = torch.tensor(part.lengths, device=query.device)
        hidden = (places[None] >= lengths[:, None])[:, None, None]
        if bounded is not None:
            distance = (places[:, None] - places[None]).abs()
            hidden = (hidden | (distance >= bounded)) & (distance > 0)
        layout.masks[kind] = query.new_zeros(hidden.shape).masked_fill_(hidden, -math.inf)
    return layout.masks[kind]
