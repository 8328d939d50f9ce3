"""Builds the index of an eval set from its items."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError
from finetune.prepare.decontaminate.eval_index import (
    ANSWER,
    CONTEXT,
    FIELDS,
    QUESTION,
    EvalIndex,
    EvalItem,
    EvalSet,
    sort_index,
    whole_lengths,
)
from finetune.prepare.decontaminate.grams import GRAM, SHORTEST_GRAM, Keys, hash_texts, rolling_grams, whole_keys

# An n-gram in more items than this is a phrase of the set ("what is the sentiment of this news …") and identifies no
# item; 10 is GPT-3's limit for n-grams that many documents share. Contexts are counted once, however many questions are
# asked about them. An answer that two items share is a stock answer.
MOST_ITEMS = {QUESTION: 10, ANSWER: 1, CONTEXT: 10}
# Longer texts keep only the smallest key of every 8 neighbours (winnowing: Schleimer, Wilkerson and Aiken, 2003): a
# fifth of the size, and every shared run of 20 words (13 + 8 - 1) is still found.
DENSE_WORDS, WINDOW = 64, 8


@dataclass(frozen=True, eq=False)
class _Column:
    """Keys of one field of all items, (keys,) each; those of one length lie text after text, along the text."""

    keys: Keys
    items: NDArray[Any]
    lengths: NDArray[Any]

    def keep(self, chosen: NDArray[Any]) -> _Column:
        """The chosen ones; by mask or by position."""
        return _Column(self.keys[chosen], self.items[chosen], self.lengths[chosen])


def build_index(name: str, items: Iterable[EvalItem]) -> EvalIndex:
    """Index the items of one eval set.

    Answers of fewer than 8 words (labels, "see a doctor") and answers of several items are not indexed.

    Raises:
        InputError: there are no items, or two have the same id.
    """
    listed = list(items)
    if not listed:
        raise InputError(f"The eval set {name} has no items. Use a file with at least one row that has a question")
    number = Counter(item.id for item in listed)
    if len(number) < len(listed):
        raise InputError(
            f"The eval set {name} has {len(listed) - len(number)} items whose id is not unique. Give each item its own"
        )
    columns, common = [], 0
    for field, attribute in enumerate(FIELDS):
        column, dropped = _index_field([getattr(item, attribute) for item in listed], field)
        columns.append(column)
        common += dropped
    fields = np.repeat(np.arange(len(FIELDS), dtype=np.uint8), [len(column.keys) for column in columns])
    return sort_index(
        (EvalSet(name, len(listed), common),),
        tuple(item.id for item in listed),
        np.concatenate([column.keys for column in columns]),
        np.concatenate([column.items for column in columns]).astype(np.uint32),
        fields,
        np.concatenate([column.lengths for column in columns]).astype(np.uint8),
    )


def _index_field(texts: Sequence[str], field: int) -> tuple[_Column, int]:
    """The keys of a field, and the number of distinct keys left out as too common."""
    column, whole = _all_keys(texts, 1 if field == QUESTION else SHORTEST_GRAM)
    owners = np.unique(whole, return_inverse=True)[1] if field == CONTEXT else np.arange(len(texts))
    pairs = np.unique(np.stack((column.keys, owners[column.items].astype(np.uint64))), axis=1)
    keys, times = np.unique(pairs[0], return_counts=True)
    common = keys[times > MOST_ITEMS[field]]
    return _thin(column.keep(~np.isin(column.keys, common)), len(texts)), len(common)


def _all_keys(texts: Sequence[str], shortest: int) -> tuple[_Column, Keys]:
    """Every key of texts with at least `shortest` words, once per text, and the keys of whole texts (texts,)."""
    hashed = hash_texts(texts)
    counts = hashed.counts
    whole = whole_keys(hashed)
    numbers = np.flatnonzero(counts >= shortest)
    parts = [(whole[numbers], numbers, whole_lengths(counts[numbers]))]
    owner = np.repeat(np.arange(len(counts)), counts)
    for length, keys in rolling_grams(hashed.words):
        positions = np.arange(len(keys))
        texts_here = owner[: len(keys)]
        inside = positions + length <= hashed.ends[texts_here]
        if length < GRAM:
            inside &= counts[texts_here] == length
        chosen = positions[inside]
        parts.append((keys[chosen], texts_here[chosen], np.full(len(chosen), length)))
    column = _Column(*(np.concatenate(part) for part in zip(*parts, strict=True)))
    first = np.unique(np.stack((column.items.astype(np.uint64), column.keys)), axis=1, return_index=True)[1]
    return column.keep(np.sort(first)), whole


def _thin(column: _Column, texts: int) -> _Column:
    """Winnow the grams of long texts."""
    grams = np.flatnonzero(column.lengths == GRAM)
    kept = [np.flatnonzero(column.lengths != GRAM)]
    bounds = np.searchsorted(column.items[grams], np.arange(texts + 1))
    for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        here = grams[start:end]
        if len(here) > max(WINDOW, DENSE_WORDS - GRAM + 1):
            windows = np.lib.stride_tricks.sliding_window_view(column.keys[here], WINDOW)
            here = here[np.unique(windows.argmin(axis=1) + np.arange(len(windows)))]
        kept.append(here)
    return column.keep(np.concatenate(kept))
