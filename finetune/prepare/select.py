"""Selects rows: splits, exact duplicates, eval sets, near-duplicates, groups and limits, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from finetune.cards.corpus_facts import ComparedSet, NamedHit
from finetune.prepare.decontaminate.eval_index import FIELDS, EvalIndex, Match
from finetune.prepare.decontaminate.verdict import find_hits
from finetune.prepare.dedup.exact import drop_exact
from finetune.prepare.dedup.near import clusters, hash_bands, near_duplicates
from finetune.prepare.dedup.signature import NUM_PERM, SIGNATURE_DTYPE
from finetune.prepare.engines.engine import BandHashes, Engine
from finetune.prepare.inputs import Inputs
from finetune.prepare.request import Progress
from finetune.prepare.row_table import KEPT, PREFERENCE, Array, RowTable
from finetune.prepare.shards import Shard, number_rows, read_columns
from finetune.prepare.splits.assign import (
    assert_disjoint,
    assign_by_hash,
    assign_by_label,
    assign_by_time,
    drop_split_groups,
    splits_of_rows,
)
from finetune.prepare.splits.shares import parse_ratio, shares_left
from finetune.prepare.splits.timestamps import parse_time_rule, write_timestamp
from finetune.records import SPLITS, Split

STEPS = 4  # steps of the progress report


@dataclass(frozen=True, slots=True)
class Cluster:
    """A kept row and its near-duplicates, by id, with their similarity."""

    kept: str
    dropped: tuple[str, ...]
    similarity: tuple[float, ...]


@dataclass(frozen=True)
class Selection:
    """How the rows of a corpus were selected.

    `clusters` is None if near-duplicates were not searched for; `boilerplate` counts the n-grams that were ignored
    because too many rows share them.
    """

    rule: str
    disjoint: str
    clusters: list[Cluster] | None
    hits: list[NamedHit]
    evals: list[ComparedSet]
    boilerplate: int


def select_rows(
    inputs: Inputs,
    table: RowTable,
    shards: Sequence[Shard],
    evals: EvalIndex | None,
    folder: Path,
    engine: Engine,
    on_progress: Progress,
) -> Selection:
    """Assign a split to every row, and a reason to every dropped row.

    Raises:
        InputError: the requested splits are impossible.
    """
    request = inputs.request
    named = sum(file.split is not None for source in inputs.sources for file in source.files)
    rule = _assign_splits(inputs, table) + (f" {named} files keep the split that they name." if named else "")
    if request.dedup:
        drop_exact(table)
    on_progress("compare", 1, STEPS, "steps")
    hits, boilerplate = _drop_contaminated(table, shards, evals) if evals is not None else ([], 0)
    on_progress("compare", 2, STEPS, "steps")
    clusters = None
    if request.dedup and request.near_duplicates < 1:
        clusters = _drop_near(table, shards, request.near_duplicates, folder, engine)
    on_progress("compare", 3, STEPS, "steps")
    if request.stratify:
        assign_by_label(table, _shares(inputs, table))
        if request.dedup:
            drop_exact(table)  # only now can rows of named splits be compared with the others
    drop_split_groups(table)
    if request.limit is not None:
        _limit(table, request.limit)
    disjoint = assert_disjoint(table, strict=request.dedup)
    on_progress("compare", 4, STEPS, "steps")
    sets = [ComparedSet(part.name, part.items) for part in evals.sets] if evals is not None else []
    return Selection(rule, disjoint, clusters, hits, sets, boilerplate)


def _assign_splits(inputs: Inputs, table: RowTable) -> str:
    """Assign a split to the rows whose sources do not name one; returns the rule as a sentence."""
    shares = _shares(inputs, table)
    request = inputs.request
    rule = parse_time_rule(request.split_by_time)
    if rule is not None:
        starts = assign_by_time(table, parse_ratio(request.split_ratio), rule.starts)
        days = "/".join(write_timestamp(start) for start in starts)
        return f"Rows are split by time: {rule.column}={days}, the timestamps from which rows are validation and test."
    if request.stratify:
        return "Each label has its exact share in every split, in the order of a hash of the group or question."
    assign_by_hash(table, shares)
    return "Rows are split by a hash of their group or question, so adding rows does not move others."


def _shares(inputs: Inputs, table: RowTable) -> list[dict[Split, float]]:
    """The shares of each source for its rows without a split."""
    ratio, only = parse_ratio(inputs.request.split_ratio), inputs.request.only
    return [
        {only: 1}
        if only is not None and source.recipe is None
        else shares_left(ratio, source.taken or splits_of_rows(table, number), source.id)
        if any(file.split is None for file in source.files)
        else {"train": 1}
        for number, source in enumerate(inputs.all_sources)
    ]


# --- eval sets --------------------------------------------------------------------------------------------------------


def _drop_contaminated(table: RowTable, shards: Sequence[Shard], evals: EvalIndex) -> tuple[list[NamedHit], int]:
    """The hits, and the number of n-grams that were ignored because too many rows share them."""
    verdict = find_hits(evals, list(_matches(shards)), len(table.reason))
    hits = [hit for hit in verdict.hits if not table.official[hit.row] and not table.earlier[hit.row]]
    for field in FIELDS:
        rows = np.array([hit.row for hit in hits if hit.field == field], np.int64)
        rows = rows[table.reason[rows] == KEPT]
        if len(rows):
            table.drop(rows, "decontaminate", f"eval_{field}")
    names = _row_names([hit.row for hit in hits], shards)
    named = [NamedHit(names[hit.row], hit.eval_set, hit.item, hit.field, round(float(hit.overlap), 3)) for hit in hits]
    return named, verdict.boilerplate


def _matches(shards: Sequence[Shard]) -> Iterator[tuple[int, Match]]:
    for shard, rows in number_rows(shards):
        for row, match in shard.matches:
            yield rows.start + row, match


# --- near-duplicates --------------------------------------------------------------------------------------------------


def _drop_near(
    table: RowTable, shards: Sequence[Shard], threshold: float, folder: Path, engine: Engine
) -> list[Cluster]:
    """Drop the near-duplicates of better rows."""
    order = table.order()
    rows = np.sort(order)
    pieces = [_ShardRows(shard.path, here.start, positions) for shard, here, positions in _by_shard(shards, rows)]
    alike = engine.rows_that_may_be_alike(partial(_hash_rows, threshold), pieces, len(rows))
    rows = rows if alike is None else alike
    if len(rows) < 2:
        return []
    rank = np.empty(len(table.reason), np.int64)
    rank[order] = np.arange(len(order))
    path = folder / "signatures.tmp"
    near = near_duplicates(_signatures(shards, rows, path), table.guard[rows], rank[rows], threshold)
    path.unlink(missing_ok=True)
    near.keeper[_answer_the_same(table, rows, near.keeper)] = -1
    groups = []
    for keeper, repeats in clusters(near.keeper):
        kept, dropped = int(rows[keeper]), {}
        for repeat in repeats:
            row = int(rows[repeat])
            if not table.official[row] and not table.earlier[row]:
                table.drop(row, "dedup", _near_reason(table, kept, row))
                dropped[row] = round(float(near.similarity[repeat]), 3)
        if dropped:
            groups.append((kept, dropped))
    names = _row_names([row for kept, dropped in groups for row in (kept, *dropped)], shards)
    return [
        Cluster(names[kept], tuple(names[row] for row in dropped), tuple(dropped.values())) for kept, dropped in groups
    ]


def _answer_the_same(table: RowTable, rows: Array, keeper: Array) -> Array:
    """(rows,) bool: rows of preference tuning that are like another one only because they answer the same prompt."""
    repeats = (keeper >= 0) & (table.kind[rows] == PREFERENCE)
    same: Array = repeats & (table.key[rows] == table.key[rows[keeper]]).all(axis=1)
    return same


def _near_reason(table: RowTable, kept: int, row: int) -> str:
    if table.earlier[kept]:
        return "near_earlier_corpus"
    if table.split_at(kept) != table.split_at(row):
        return f"near_{SPLITS[table.split_at(kept)]}"
    return "near_duplicate"


@dataclass(frozen=True, slots=True)
class _ShardRows:
    """Some rows of a shard by position, and the number of its first row among all rows."""

    shard: Path
    start: int
    positions: Array


def _by_shard(shards: Sequence[Shard], rows: Array) -> Iterator[tuple[Shard, slice, Array]]:
    """The shards that have some of the rows, with the numbers of all of their rows and the positions of those."""
    for shard, here in number_rows(shards):
        positions = rows[slice(*np.searchsorted(rows, [here.start, here.stop]))] - here.start
        if len(positions):
            yield shard, here, positions


def _hash_rows(threshold: float, piece: _ShardRows) -> BandHashes:
    guards = read_columns(piece.shard, ["guard"])["guard"].to_numpy()[piece.positions]
    signatures = _read_signatures(piece.shard)[piece.positions]
    return hash_bands(signatures, guards, threshold), piece.positions + piece.start


def _read_signatures(shard: Path) -> Array:
    column = read_columns(shard, ["signature"])["signature"].combine_chunks()
    return np.frombuffer(column.buffers()[1], SIGNATURE_DTYPE).reshape(-1, NUM_PERM)


def _signatures(shards: Sequence[Shard], rows: Array, path: Path) -> Array:
    """The signatures of the given rows, in a file: for a million rows they take a quarter of a gigabyte."""
    signatures = np.memmap(path, SIGNATURE_DTYPE, "w+", shape=(len(rows), NUM_PERM))
    filled = 0
    for shard, _, positions in _by_shard(shards, rows):
        signatures[filled : filled + len(positions)] = _read_signatures(shard.path)[positions]
        filled += len(positions)
    signatures.flush()
    del signatures
    return np.memmap(path, SIGNATURE_DTYPE, "r", shape=(len(rows), NUM_PERM))


# --- limit and names --------------------------------------------------------------------------------------------------


def _limit(table: RowTable, limit: int) -> None:
    """Keep `limit` rows per source and split, drawn by hash: files are often sorted by label."""
    rows = np.flatnonzero(table.kept)
    pools = table.source[rows].astype(np.int64) * 4 + table.split[rows]
    ordered = rows[np.lexsort((table.rank[rows], pools))]
    pools = np.sort(pools)
    position = np.arange(len(pools)) - np.searchsorted(pools, pools)
    away = ordered[position >= limit]
    if len(away):
        table.drop(away, "limit", "over_limit")


def _row_names(rows: Sequence[int], shards: Sequence[Shard]) -> dict[int, str]:
    """The ids of the given rows."""
    numbers = np.unique(np.array(rows, np.int64))
    names: dict[int, str] = {}
    for shard, here in number_rows(shards):
        chosen = numbers[slice(*np.searchsorted(numbers, [here.start, here.stop]))]
        if len(chosen):
            ids = read_columns(shard.path, ["id"])["id"].take(chosen - here.start).to_pylist()
            names.update(zip(map(int, chosen), ids, strict=True))
    return names
