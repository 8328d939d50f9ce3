"""Which rows give away an evaluation set, judged when all rows have been compared with its index.

A shared gram is no proof: 88 of 114 sources that a plain 13-gram filter had flagged were false alarms (marin#6852), for
grams of instructions, statistics and quotations that many texts share. So a gram that many rows have does not count,
and a row is a hit only with one that does.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property

from finetune.errors import InputError
from finetune.prepare.decontaminate.eval_index import FIELDS, WHOLE, EvalField, EvalIndex, Match, merge_indexes
from finetune.prepare.decontaminate.grams import SHORTEST_GRAM, SPECIFIC_WORDS
from finetune.recipe import Domain

# A gram in more rows than this is boilerplate. 10 documents is GPT-3's limit (arXiv 2005.14165, appendix C); the share
# takes over above 100,000 rows, where a leak that came in through several collections may be there more often.
MOST_ROWS, MOST_SHARE = 10, 1e-4
# A row with all of a text's grams, at least so many, holds a copy: no set phrase has 17 words. Copies are hits however
# many there are, since a leak does not become harmless by being repeated.
COPY_GRAMS = 5


@dataclass(frozen=True, slots=True)
class Hit:
    """A row that gives away a field of an item; `overlap` is the share of the field's telling grams that it has."""

    row: int
    eval_set: str
    item: str
    field: EvalField
    overlap: float


@dataclass(frozen=True, slots=True)
class Ignored:
    """What did not count for a set: grams of many rows, grams of many items, and the rows that shared nothing else."""

    eval_set: str
    grams_of_many_rows: int
    grams_of_many_items: int
    rows: int


@dataclass(frozen=True)
class Verdict:
    """The hits by row, item and field; `most_rows` is the number of rows from which on a gram was boilerplate."""

    hits: tuple[Hit, ...]
    ignored: tuple[Ignored, ...]
    most_rows: int

    @cached_property
    def rows(self) -> tuple[int, ...]:
        """The rows to leave out, in order."""
        return tuple(sorted({hit.row for hit in self.hits}))


def find_hits(index: EvalIndex, found: Sequence[tuple[int, Match]], rows: int) -> Verdict:
    """Tell hits from boilerplate; `found` are the matches of all rows, `rows` is how many rows were compared."""
    most_rows = max(MOST_ROWS, int(rows * MOST_SHARE))
    lengths_of = cache(index.keys_of)
    copies = [_is_copy(match, lengths_of(match.item, match.field)) for _, match in found]
    holders: dict[int, set[int]] = defaultdict(set)
    for (row, match), copy in zip(found, copies, strict=True):
        for key in () if copy else match.grams:
            holders[key].add(row)
    common = {key for key, where in holders.items() if len(where) > most_rows}
    hits: dict[tuple[int, int, int], Hit] = {}
    shared: dict[str, set[int]] = defaultdict(set)
    for (row, match), copy in zip(found, copies, strict=True):
        name = index.set_of(match.item).name
        overlap = 1.0 if copy else _overlap(match, lengths_of(match.item, match.field), common)
        if overlap:
            place = row, match.item, FIELDS.index(match.field)
            hits[place] = Hit(row, name, index.ids[match.item], match.field, overlap)
        shared[name].add(row)
    ordered = tuple(hits[place] for place in sorted(hits))
    return Verdict(ordered, _ignored(index, found, common, shared, ordered), most_rows)


def open_evals(domain: Domain) -> EvalIndex | None:
    """The eval sets that a domain's recipe names, as one index; None where it names none.

    Raises:
        InputError: a set is missing or damaged; a set that is not compared with is never passed over.
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
    """Whether a row holds a whole question or context that is long enough to be nothing else.

    A stock answer may be long, so answers are never exempt from the guard.
    """
    if match.field == "answer":
        return False
    whole = [lengths[key] for key in match.grams if _is_whole(lengths[key])]
    if any(length == WHOLE or length >= SPECIFIC_WORDS for length in whole):
        return True
    grams = {key for key, length in lengths.items() if not _is_whole(length)}
    return len(grams) >= COPY_GRAMS and grams <= set(match.grams)


def _overlap(match: Match, lengths: Mapping[int, int], common: set[int]) -> float:
    """The share of a field's telling grams that a row has; 1 for a whole text."""
    telling = [key for key in match.grams if key not in common]
    if any(_is_whole(lengths[key]) for key in telling):
        return 1.0
    grams = [key for key, length in lengths.items() if key not in common and not _is_whole(length)]
    return len(telling) / len(grams) if grams else 0.0


def _is_whole(length: int) -> bool:
    return length == WHOLE or length < SHORTEST_GRAM


def _ignored(
    index: EvalIndex,
    found: Sequence[tuple[int, Match]],
    common: set[int],
    shared: Mapping[str, set[int]],
    hits: Sequence[Hit],
) -> tuple[Ignored, ...]:
    keys: dict[str, set[int]] = defaultdict(set)
    for _, match in found:
        keys[index.set_of(match.item).name].update(key for key in match.grams if key in common)
    answered: dict[str, set[int]] = defaultdict(set)
    for hit in hits:
        answered[hit.eval_set].add(hit.row)
    return tuple(
        Ignored(part.name, len(keys[part.name]), part.common, len(shared[part.name] - answered[part.name]))
        for part in index.sets
    )
