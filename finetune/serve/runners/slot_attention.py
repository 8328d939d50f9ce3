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
        self._rotation: tuple[Tensor, Tensor] | None = None

    def rotation(self, cosine: Tensor, sine: Tensor) -> tuple[Tensor, Tensor]:
        """The cosines, and the sines with the sign of their half of the width, by which all layers rotate.

        From (1, tokens, width) to (tokens, 1, width), for `states · cosine + states.roll(width / 2) · sine`.
        """
        if self._rotation is None:
            first, second = sine[0, :, None].chunk(2, -1)
            self._rotation = cosine[0, :, None], torch.cat((-first, second), -1)
        return self._rotation


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
        self._written: dict[int, Tensor] = {}
        self._place_of_row = torch.zeros(self._count, dtype=torch.long).index_copy_(0, self._rows, self.places)
        self._last_of_row = torch.zeros(self._count, dtype=torch.long).index_copy_(0, self._rows, self._lengths)
        self._masks: dict[int | None, Tensor] = {}

    def attend(
        self, layer: nn.Module, query: Tensor, key: Tensor, value: Tensor, scaling: float | None, window: int | None
    ) -> Tensor:
        """The tokens of the pass, (tokens, heads, width), of which these see their sequences: (these, heads, width)."""
        keys, values = self._pool.states(layer, key, value)
        heads = key.shape[1]
        for states, new in ((keys, key), (values, value)):
            new = self._of_these(new).reshape(-1, new.shape[2])
            states.view(-1, new.shape[1]).index_copy_(0, self._places_of_heads(heads), new)
        asked = query[self._place_of_row]
        attended = scaled_dot_product_attention(
            asked.view(self._count, heads, -1, query.shape[2]),  # heads that share a key head: as its queries
            keys[: self._count, :, : self._tokens],
            values[: self._count, :, : self._tokens],
            attn_mask=self._mask(window),
            scale=scaling,
        )
        return attended.reshape(self._count, query.shape[1], -1)[self._rows]

    def _of_these(self, states: Tensor) -> Tensor:
        """The states of these sequences' tokens, in their order."""
        return states if len(states) == len(self.places) else states[self.places]

    def _places_of_heads(self, heads: int) -> Tensor:
        """Where the new token of each sequence and head is in a layer of the pool, whose rows have so many heads."""
        places = self._written.get(heads)
        if places is None:
            rows = (self._rows[:, None] * heads + torch.arange(heads)) * POOLED + self._lengths[:, None]
            places = self._written[heads] = rows.flatten()
        return places

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
    states = (each[0].transpose(0, 1) for each in (query, key, value))
    result = attend_slots(module, *states, spans=spans, scaling=scaling, window=sliding_window, softcap=softcap)
    return result[None], None


def attend_slots(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    spans: Spans,
    scaling: float | None = None,
    window: int | None = None,
    softcap: float | None = None,
) -> Tensor:
    """`slot_attention` of (tokens, heads, width)."""
    together = spans.together if softcap is None else None
    if together is not None and not spans.alone:
        return together.attend(module, query, key, value, scaling, window)
    result = query.new_empty(*query.shape[:2], value.shape[2])
    if together is not None:
        result[together.places] = together.attend(module, query, key, value, scaling, window)
    for span in spans.all if together is None else spans.alone:
        asked, *new = (each[span.start : span.end].transpose(0, 1)[None] for each in (query, key, value))
        keys, values = span.cache.extend(module, *new)
        result[span.start : span.end] = _attend(asked, keys, values, scaling, window, softcap)[0].transpose(0, 1)
    return result


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
