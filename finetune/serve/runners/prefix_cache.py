"""Sequences that have ended and are kept for prompts that begin with the same tokens, under the same adapter."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from finetune.records import count_alike
from finetune.serve.runners.sequence_cache import SequenceCache


@dataclass(frozen=True, slots=True, eq=False)
class Cached:
    """The tokens that a cache holds, and the adapter that computed it."""

    tokens: tuple[int, ...]
    adapter: str | None
    cache: SequenceCache

    def count_shared(self, prompt: Sequence[int], adapter: str | None) -> int:
        """How many tokens at the start of a prompt can be taken over; the last one is always computed."""
        return count_alike(self.tokens, prompt[:-1]) if adapter == self.adapter else 0


class PrefixCache:
    """Keeps up to `count` sequences, which take up to `size` bytes: those that were used last."""

    def __init__(self, count: int, size: int) -> None:
        self._count, self._size = count, size
        self._kept: list[Cached] = []  # the most recently used last

    def fill(self, cache: SequenceCache, prompt: Sequence[int], adapter: str | None) -> None:
        """Let an empty cache begin with as many tokens of the prompt as are known."""
        best, shared = None, 0
        for cached in self._kept:
            if (count := cached.count_shared(prompt, adapter)) > shared:
                best, shared = cached, count
        if best is not None:
            self._kept.remove(best)
            self._kept.append(best)
            cache.take(best.cache, shared)

    def keep(self, tokens: Sequence[int], adapter: str | None, cache: SequenceCache) -> None:
        """Keep a copy of a sequence, in place of those that it begins with."""
        new = Cached(tuple(tokens[: cache.length]), adapter, cache.copy(cache.length))
        self._kept = [
            old for old in self._kept if old.adapter != adapter or old.tokens != new.tokens[: len(old.tokens)]
        ]
        self._kept.append(new)
        total = sum(cached.cache.bytes for cached in self._kept)
        while self._kept and (len(self._kept) > self._count or total > self._size):
            total -= self._kept.pop(0).cache.bytes

    def forget(self, adapter: str) -> None:
        """Forget what an adapter computed."""
        self._kept = [cached for cached in self._kept if cached.adapter != adapter]
