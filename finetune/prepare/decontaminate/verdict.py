"""Decides which rows contain items of an eval set, after all rows have been compared with its index.

A shared n-gram is not proof: 88 of 114 sources flagged by a plain 13-gram filter were false alarms (marin#6852), because
of n-grams from instructions, statistics and quotations that many texts share. So an n-gram that many rows have does not
count, and a row is a hit only if it has another one.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from finetune.errors import InputError
from finetune.prepare.decontaminate.eval_index import FIELDS, WHOLE, EvalField, EvalIndex, Match, merge_indexes
from finetune.prepare.decontaminate.grams import SHORTEST_GRAM, SPECIFIC_WORDS
from finetune.recipe import Domain

# An n-gram in more rows than this is boilerplate. 10 documents is GPT-3's limit (arXiv 2005.14165, appendix C); the share
# takes over above 100,000 rows, where a leak from several collections may occur more often.
MOST_ROWS, MOST_SHARE = 10, 1e-4
# A row with all n-grams of a text, and at least this many, contains a copy: no set phrase has 17 words. Copies are hits
# however many there are, because repetition does not make a leak harmless.
COPY_GRAMS = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that contains a field of an item; `overlap` is the share of the field's counted n-grams that the row has."""

    row: int
    eval_set: str
    item: str
    field: EvalField
    overlap: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """The hits by row, item and field; `boilerplate` gives, per set, the number of n-grams ignored as too common."""

    hits: tuple[Hit, ...]
    boilerplate: int


def find_hits(index: EvalIndex, matches: Sequence[tuple[int, Match]], rows: int) -> Verdict:
    """Separate hits from boilerplate; `matches` are those of all rows, `rows` is the number of compared rows."""
    most_rows = max(MOST_ROWS, int(rows * MOST_SHARE))
    lengths_of = cache(index.keys_of)
    copies = [_is_copy(match, lengths_of(match.item, match.field)) for _, match in matches]
    holders: dict[int, set[int]] = defaultdict(set)
    for (row, match), copy in zip(matches, copies, strict=True):
        for key in () if copy else match.grams:
            holders[key].add(row)
    common = {key for key, where in holders.items() if len(where) > most_rows}
    hits: dict[tuple[int, int, int], Hit] = {}
    ignored: set[tuple[str, int]] = set()
    for (row, match), copy in zip(matches, copies, strict=True):
        name = index.set_of(match.item).name
        overlap = 1.0 if copy else _overlap(match, lengths_of(match.item, match.field), common)
        if overlap:
            cell = row, match.item, FIELDS.index(match.field)
            hits[cell] = Hit(row, name, index.ids[match.item], match.field, overlap)
        ignored.update((name, key) for key in common.intersection(match.grams))
    return Verdict(tuple(hits[cell] for cell in sorted(hits)), len(ignored))


def open_evals(domain: Domain) -> EvalIndex | None:
    """The eval sets in a domain's recipe, as one index; None if there are none.

    Raises:
        InputError: a set is missing or damaged; none is skipped silently.
    """
    indexes = []
    for recipe in domain.recipe.evals:
        path = domain.folder / recipe.index
        if not path.is_file():
            raise InputError(
                f"The eval set {recipe.id} of the domain {domain.name} is not at {path}, so rows cannot be compared with "
                f"it. Install slmtune again, or make the file from {recipe.source} with examples/index_eval_set.py"
            )
        index = EvalIndex.load(path)
        if [part.name for part in index.sets] != [recipe.id]:
            raise InputError(
                f"{path} is the index of {', '.join(part.name for part in index.sets)}, not of {recipe.id} as the recipe "
                f"of {domain.name} says. Correct the recipe's evals"
            )
        indexes.append(index)
    return merge_indexes(indexes) if indexes else None


def _is_copy(match: Match, lengths: Mapping[int, int]) -> bool:
    """Whether a row contains a whole question or context that is long enough to be a copy.

    A stock answer may be long, so answers are never exempt from the check for common n-grams.
    """
    if match.field == "answer":
        return False
    whole = [lengths[key] for key in match.grams if _is_whole(lengths[key])]
    if any(length == WHOLE or length >= SPECIFIC_WORDS for length in whole):
        return True
    grams = {key for key, length in lengths.items() if not _is_whole(length)}
    return len(grams) >= COPY_GRAMS and grams <= set(match.grams)


def _overlap(match: Match, lengths: Mapping[int, int], common: set[int]) -> float:
    """The share of a field's counted n-grams that a row has; 1 for a whole text."""
    telling = [key for key in match.grams if key not in common]
    if any(_is_whole(lengths[key]) for key in telling):
        return 1.0
    grams = [key for key, length in lengths.items() if key not in common and not _is_whole(length)]
    return len(telling) / len(grams) if grams else 0.0


def _is_whole(length: int) -> bool:
    return length == WHOLE or length < SHORTEST_GRAM
