"""Attention of several sequences in one forward pass: each token sees its own sequence, whose keys and values are cached.

Registered with transformers under `SLOTS`, for architectures that take their attention function from the registry
(`_supports_attention_backend`). The tokens of all sequences follow each other in one row, so nothing is padded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

SLOTS = "slmtune_slots"
BLOCK = 64  # tokens; caches grow by at least this, and by half
States = tuple[Tensor, Tensor]


class SequenceCache:
    """The keys and values of one sequence by layer. `length` counts the tokens of the passes that are complete."""

    def __init__(self) -> None:
        self.length = 0
        self._layers: dict[nn.Module, States] = {}

    @property
    def bytes(self) -> int:
        """The memory that it takes."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers.values())

    @property
    def bytes_per_token(self) -> int:
        """The memory that each token takes."""
        return sum((keys.nbytes + values.nbytes) // keys.shape[2] for keys, values in self._layers.values())

    def extend(self, layer: nn.Module, key: Tensor, value: Tensor) -> States:
        """Append (1, heads, tokens, width) to a layer; returns all of its keys and values."""
        end = self.length + key.shape[2]
        states = self._layers.get(layer)
        if states is None or states[0].shape[2] < end:
            before = states or (key[:, :, :0], value[:, :, :0])
            states = self._layers[layer] = _enlarge(before[0], end), _enlarge(before[1], end)
        keys, values = states
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def copy(self, length: int) -> SequenceCache:
        """The first tokens, in memory of their own."""
        cache = SequenceCache()
        cache.length = length
        for layer, (keys, values) in self._layers.items():
            cache._layers[layer] = keys[:, :, :length].clone(), values[:, :, :length].clone()
        return cache


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of a sequence in a pass: from `start` to before `end`."""

    cache: SequenceCache
    start: int
    end: int


def register() -> None:
    """Register `attn_implementation=SLOTS` with transformers, which then builds no mask itself."""
    AttentionInterface.register(SLOTS, slot_attention)


def slot_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    spans: Sequence[Span],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attend within each sequence, and extend its cache.

    Args:
        query: (1, heads, tokens, width); key and value: (1, key heads, tokens, width).
        spans: passed through the model's keyword arguments.
        sliding_window: number of tokens that a token sees, including itself.
        softcap: bound of the attention scores, applied with tanh (Gemma 2).

    Returns:
        (1, tokens, heads, width), and no weights.
    """
    result = query.new_empty(1, query.shape[2], query.shape[1], value.shape[3])
    for span in spans:
        own = slice(span.start, span.end)
        keys, values = span.cache.extend(module, key[:, :, own], value[:, :, own])
        attended = _attend(query[:, :, own], keys, values, scaling, sliding_window, softcap)
        result[:, own] = attended.transpose(1, 2)
    return result, None


def _enlarge(states: Tensor, tokens: int) -> Tensor:
    """The same states with room for more tokens."""
    _, heads, before, width = states.shape
    room = max(tokens, before + max(before // 2, BLOCK))
    larger = states.new_empty(1, heads, -(-room // BLOCK) * BLOCK, width)
    larger[:, :, :before] = states
    return larger


def _attend(
    query: Tensor, keys: Tensor, values: Tensor, scaling: float | None, window: int | None, softcap: float | None
) -> Tensor:
    """The new tokens of one sequence, (1, heads, new, width), see all of its (1, key heads, tokens, width)."""
    new, tokens = query.shape[2], keys.shape[2]
    if new == 1 and window is not None and window < tokens:
        keys, values, tokens = keys[:, :, -window:], values[:, :, -window:], window
    mask = None if new == 1 else _mask(new, tokens, window, query.device)
    if softcap is not None:
        return _attend_with_bound(query, keys, values, mask, scaling, softcap)
    if new == 1:  # the heads that share a key head take the place of its queries
        packed = query.view(1, keys.shape[1], -1, query.shape[3])
        attended = scaled_dot_product_attention(packed, keys, values, scale=scaling)
        return attended.reshape(1, query.shape[1], 1, -1)
    repeats = query.shape[1] // keys.shape[1]
    if repeats > 1:
        keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
    return scaled_dot_product_attention(query, keys, values, attn_mask=mask, scale=scaling)


def _attend_with_bound(
    query: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None, scaling: float | None, softcap: float
) -> Tensor:
    """Attention whose scores are bounded, for which there is no fused kernel."""
    repeats = query.shape[1] // keys.shape[1]
    keys, values = keys.repeat_interleave(repeats, 1), values.repeat_interleave(repeats, 1)
    scores = query @ keys.transpose(2, 3) * (query.shape[3] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap
    if mask is not None:
        scores = scores.masked_fill(~mask, float("-inf"))
    return torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype) @ values


def _mask(new: int, tokens: int, window: int | None, device: torch.device) -> Tensor:
    """(new, tokens): which tokens each of the last `new` ones sees."""
    mask = torch.ones(new, tokens, dtype=torch.bool, device=device).tril(tokens - new)
    return mask if window is None else mask.triu(tokens - new - window + 1)
