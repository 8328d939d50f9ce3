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

from finetune.serve.runners.sequence_cache import POOLED, SequenceCache, SequencePool

SLOTS = "slmtune_slots"


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens of a sequence in a pass: from `start` to before `end`."""

    cache: SequenceCache
    start: int
    end: int


class Spans:
    """The sequences of a pass: `together` are those with a single token in the rows of a pool, `alone` all others."""

    def __init__(self, spans: Sequence[Span]) -> None:
        pooled = [span for span in spans if _is_pooled(span)]
        self.together = Together(pooled) if len(pooled) > 1 else None
        self.alone = spans if self.together is None else [span for span in spans if not _is_pooled(span)]
        self.all = spans


class Together:
    """Sequences with a new token each, whose keys and values are in the rows of one pool, which are read as they lie there.

    A row between them that takes no part is computed as well, and its result dropped.
    """

    def __init__(self, spans: Sequence[Span]) -> None:
        pool = spans[0].cache.pool
        assert pool is not None
        self._pool: SequencePool = pool
        rows = [span.cache.row or 0 for span in spans]
        lengths = [span.cache.length for span in spans]
        self._count, self._tokens = max(rows) + 1, max(lengths) + 1
        self._rows, self._lengths = torch.tensor(rows), torch.tensor(lengths)
        self.places = torch.tensor([span.start for span in spans])  # of their tokens in the pass
        self._place_of_row = torch.zeros(self._count, dtype=torch.long).index_copy_(0, self._rows, self.places)
        self._last_of_row = torch.zeros(self._count, dtype=torch.long).index_copy_(0, self._rows, self._lengths)
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """The tokens of the pass, (1, heads, tokens, width), of which these see their sequences: (these, heads, width)."""
        keys, values = self._pool.states(layer, (key, value))
        keys[self._rows, :, self._lengths] = key[0].transpose(0, 1)[self.places]
        values[self._rows, :, self._lengths] = value[0].transpose(0, 1)[self.places]
        asked = query[0].transpose(0, 1)[self._place_of_row]
        attended = scaled_dot_product_attention(
            asked.view(self._count, keys.shape[1], -1, query.shape[3]),  # heads that share a key head: as its queries
            keys[: self._count, :, : self._tokens],
            values[: self._count, :, : self._tokens],
            attn_mask=self._mask(window),
            scale=scaling,
        )
        return attended.reshape(self._count, query.shape[1], -1)[self._rows]

    def _mask(self, window: int | None) -> Tensor:
        """(rows, 1, 1, tokens): which tokens the last one of each row sees."""
        mask = self._masks.get(window)
        if mask is None:
            places, last = torch.arange(self._tokens), self._last_of_row[:, None]
            mask = places <= last
            if window is not None:
                mask &= places > last - window
            mask = self._masks[window] = mask[:, None, None]
        return mask


def _is_pooled(span: Span) -> bool:
    return span.end - span.start == 1 and span.cache.row is not None and 0 < span.cache.length < POOLED


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
    spans: Spans,
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
    together = spans.together if softcap is None else None
    if together is not None:
        result[0, together.places] = together.attend(module, query, key, value, scaling, sliding_window)
    for span in spans.all if together is None else spans.alone:
        own = slice(span.start, span.end)
        keys, values = span.cache.extend(module, key[:, :, own], value[:, :, own])
        attended = _attend(query[:, :, own], keys, values, scaling, sliding_window, softcap)
        result[:, own] = attended.transpose(1, 2)
    return result, None


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
