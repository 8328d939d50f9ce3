"""An eval set as hashes of word n-grams: enough to find copies of its items, but not to read them.

The `length` of a key gives its kind: 8 to 13, an n-gram of that many words; 0, a whole text; 1 to 7, a whole text that is
too short for an n-gram, so that only the whole question or answer of a row can equal it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError
from finetune.prepare.decontaminate.grams import (
    SHORTEST_GRAM,
    HashedTexts,
    Keys,
    Numbers,
    hash_texts,
    rolling_grams,
    whole_keys,
)
from finetune.prepare.decontaminate.index_file import read_arrays, write_arrays

EvalField = Literal["question", "answer", "context"]

FIELDS: tuple[EvalField, ...] = ("question", "answer", "context")
QUESTION, ANSWER, CONTEXT = range(3)
WHOLE = 0  # the length that marks a whole text of 8 words or more
SLOTS = 32  # slots of the filter per key: 2 or 3 % of unrelated n-grams pass it
REMEDY = "Make it again with examples/index_eval_set.py, or reinstall slmtune if the file is part of it"
KINDS = {"header": "uint8", "keys": "uint64", "items": "uint16|uint32", "fields": "uint8", "lengths": "uint8"}


@dataclass(frozen=True, slots=True)
class EvalItem:
    """One item of an eval set. The text that a question is about goes into `context`, so that both are found."""

    id: str
    question: str
    answer: str = ""
    context: str = ""


@dataclass(frozen=True, slots=True)
class EvalSet:
    """A set within an index: its number of items, and the number of keys left out because many items share them."""

    name: str
    items: int
    common: int


@dataclass(frozen=True, slots=True)
class Match:
    """The keys that a row shares with a field of item number `item`."""

    item: int
    field: EvalField
    grams: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class EvalIndex:
    """Keys (keys,) sorted, and for each its item number, field and length; `ids` of all items, set after set."""

    sets: tuple[EvalSet, ...]
    ids: tuple[str, ...]
    keys: Keys
    items: NDArray[Any]
    fields: NDArray[np.uint8]
    lengths: NDArray[np.uint8]

    def match_rows(self, questions: Sequence[str], answers: Sequence[str]) -> list[tuple[int, Match]]:
        """(row, match) for every row and field of an item that share a key, sorted by row, item and field.

        All fields of an item are searched for in both texts of a row, and no n-gram spans two texts.
        """
        texts = hash_texts([text for pair in zip(questions, answers, strict=True) for text in pair])
        pairs = [self._expand(*candidate) for candidate in self._candidates(texts)]
        if not pairs:
            return []
        rows, positions = (np.concatenate(part) for part in zip(*pairs, strict=True))
        order = np.lexsort((self.keys[positions], self.fields[positions], self.items[positions], rows))
        return self._collect(rows[order].tolist(), positions[order])

    def set_of(self, item: int) -> EvalSet:
        """The set that an item number belongs to."""
        return self.sets[int(np.searchsorted(self._bounds, item, "right"))]

    def keys_of(self, item: int, field: EvalField) -> dict[int, int]:
        """Key -> length, of one field of an item."""
        order, owners = self._by_item
        owner = item * len(FIELDS) + FIELDS.index(field)
        positions = order[np.searchsorted(owners, owner) : np.searchsorted(owners, owner, "right")]
        return dict(zip(self.keys[positions].tolist(), self.lengths[positions].tolist(), strict=True))

    def save(self, path: Path) -> None:
        """Write the index as npz; equal indexes give identical files."""
        sets = [[part.name, part.items, part.common] for part in self.sets]
        header = json.dumps({"format": "slmtune-eval-index", "version": 1, "sets": sets, "ids": self.ids})
        items = self.items.astype(np.uint16 if len(self.ids) <= 1 << 16 else np.uint32)
        arrays = {"keys": self.keys, "items": items, "fields": self.fields, "lengths": self.lengths}
        write_arrays(path, {"header": np.frombuffer(header.encode(), np.uint8), **arrays})

    @staticmethod
    def load(path: Path) -> EvalIndex:
        """Read an index, even from an untrusted source.

        Raises:
            InputError: the file is missing, damaged or not an index; says what to do.
        """
        arrays = read_arrays(path, KINDS, REMEDY)
        try:
            sets, ids = _header(arrays.pop("header").tobytes())
            index = EvalIndex(sets, ids, **arrays)
            _check(index)
        except ValueError as error:
            raise InputError(f"{path} is damaged or is not the index of an eval set: {error}. {REMEDY}") from None
        return index

    @cached_property
    def _bounds(self) -> Numbers:
        return np.cumsum([part.items for part in self.sets])

    @cached_property
    def _by_item(self) -> tuple[Numbers, Numbers]:
        owners = self.items.astype(np.int64) * len(FIELDS) + self.fields
        order = np.argsort(owners, kind="stable")
        return order, owners[order]

    @cached_property
    def _filter(self) -> tuple[np.uint64, NDArray[np.bool_]]:
        """A shift, and a table that says for the top bits of a key whether any key of the index has them."""
        bits = max(10, (len(self.keys) * SLOTS).bit_length())
        shift = np.uint64(64 - bits)
        table = np.zeros(1 << bits, np.bool_)
        table[self.keys >> shift] = True
        return shift, table

    @cached_property
    def _lengths_here(self) -> frozenset[int]:
        return frozenset(np.unique(self.lengths).tolist())

    def _candidates(self, texts: HashedTexts) -> Iterator[tuple[NDArray[Any], Keys, NDArray[Any]]]:
        """(text numbers, keys, lengths) that pass the filter: whole texts, then grams that end before their text does."""
        shift, table = self._filter
        counts = texts.counts
        whole = whole_keys(texts)
        numbers = np.flatnonzero(table[whole >> shift] & (counts > 0))
        yield numbers, whole[numbers], whole_lengths(counts[numbers])
        for length, keys in rolling_grams(texts.words):
            if length in self._lengths_here:
                positions = np.flatnonzero(table[keys >> shift])
                numbers = np.searchsorted(texts.ends, positions, "right")
                inside = positions + length <= texts.ends[numbers]
                yield numbers[inside], keys[positions[inside]], np.full(int(inside.sum()), length)

    def _expand(self, numbers: NDArray[Any], keys: Keys, lengths: NDArray[Any]) -> tuple[Numbers, Numbers]:
        """Distinct pairs of a row and a position in the index."""
        first = np.searchsorted(self.keys, keys)
        repeats = np.searchsorted(self.keys, keys, "right") - first
        starts = np.repeat(first - (np.cumsum(repeats) - repeats), repeats)
        positions = starts + np.arange(len(starts))
        fits = self.lengths[positions] == np.repeat(lengths, repeats)
        rows = np.repeat(numbers // 2, repeats)
        pairs = np.unique(rows[fits] * len(self.keys) + positions[fits])
        return pairs // len(self.keys), pairs % len(self.keys)

    def _collect(self, rows: list[int], positions: Numbers) -> list[tuple[int, Match]]:
        owners = zip(rows, self.items[positions].tolist(), self.fields[positions].tolist(), strict=True)
        shared: dict[tuple[int, int, int], list[int]] = {}
        for owner, key in zip(owners, self.keys[positions].tolist(), strict=True):
            shared.setdefault(owner, []).append(key)
        return [(row, Match(item, FIELDS[field], tuple(keys))) for (row, item, field), keys in shared.items()]


def merge_indexes(indexes: Iterable[EvalIndex]) -> EvalIndex:
    """One index of several sets.

    Raises:
        InputError: there is none, or two sets have the same name.
    """
    parts = list(indexes)
    sets = tuple(each for part in parts for each in part.sets)
    names = [each.name for each in sets]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice or not sets:
        raise InputError(
            f"Two eval sets are called {twice[0]}. Rename one of the files, or list it only once"
            if twice
            else "There is no eval set to compare with. Pass one with --decontaminate FILE"
        )
    offsets = np.cumsum([0, *(len(part.ids) for part in parts)])
    ids = tuple(name for part in parts for name in part.ids)
    items = [part.items.astype(np.uint32) + np.uint32(offset) for part, offset in zip(parts, offsets, strict=False)]
    columns = [np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "fields", "lengths")]
    return sort_index(sets, ids, columns[0], np.concatenate(items), columns[1], columns[2])


def sort_index(
    sets: tuple[EvalSet, ...],
    ids: tuple[str, ...],
    keys: Keys,
    items: NDArray[np.uint32],
    fields: NDArray[np.uint8],
    lengths: NDArray[np.uint8],
) -> EvalIndex:
    """An index with its keys in order."""
    order = np.lexsort((lengths, fields, items, keys))
    return EvalIndex(sets, ids, keys[order], items[order], fields[order], lengths[order])


def whole_lengths(counts: NDArray[Any]) -> NDArray[Any]:
    """The kind of key of whole texts with these word counts."""
    return np.where(counts < SHORTEST_GRAM, counts, WHOLE)


def _header(content: bytes) -> tuple[tuple[EvalSet, ...], tuple[str, ...]]:
    try:
        data = json.loads(content)
        sets = tuple(EvalSet(name, items, common) for name, items, common in data["sets"])
        ids = tuple(data["ids"])
    except (ValueError, KeyError, TypeError, RecursionError):
        raise ValueError("its header cannot be read") from None
    if data.get("format") != "slmtune-eval-index" or data.get("version") != 1:
        raise ValueError("it was made by another version of slmtune")
    numbers = [number for each in sets for number in (each.items, each.common)]
    if not all(type(number) is int and number >= 0 for number in numbers):
        raise ValueError("its counts are not numbers")
    if not all(isinstance(name, str) for name in (*ids, *(each.name for each in sets))):
        raise ValueError("its names are not text")
    if not sets or sum(each.items for each in sets) != len(ids):
        raise ValueError("its sets do not have the items that they state")
    return sets, ids


def _check(index: EvalIndex) -> None:
    columns = (index.items, index.fields, index.lengths)
    if any(len(column) != len(index.keys) for column in columns):
        raise ValueError("its columns differ in length")
    if np.any(index.keys[1:] < index.keys[:-1]):
        raise ValueError("its keys are not in order")
    tops = (len(index.ids), len(FIELDS), 14)
    if any(len(column) and int(column.max()) >= top for column, top in zip(columns, tops, strict=True)):
        raise ValueError("it points at items or fields that it does not have")
