"""Which rows stay and where: splits, exact duplicates, eval sets, near-duplicates, groups, limit, in this order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from finetune.prepare.decontaminate.eval_index import FIELDS, EvalIndex, Match
from finetune.prepare.decontaminate.verdict import Hit, find_hits
from finetune.prepare.dedup.exact import drop_exact
from finetune.prepare.dedup.near import clusters, near_duplicates
from finetune.prepare.dedup.signature import NUM_PERM, SIGNATURE_DTYPE
from finetune.prepare.request import PrepareRequest, Progress
from finetune.prepare.row_table import KEPT, Array, RowTable
from finetune.prepare.shards import Shard, read_columns
from finetune.prepare.sources.source import Source
from finetune.prepare.splits.assign import (
    assert_disjoint,
    assign_by_hash,
    assign_by_label,
    assign_by_time,
    drop_split_groups,
)
from finetune.prepare.splits.shares import parse_ratio, shares_left
from finetune.prepare.splits.timestamps import parse_time_rule
from finetune.records import SPLITS


@dataclass(frozen=True)
class Decided:
    """What the corpus tells of the decisions.

    `clusters` have a kept row and those that nearly repeat it, None where they were not looked for; `hits` the rows
    that gave away an eval set; `evals` have a name and a number of items; `boilerplate` counts the grams that so many
    rows share that they prove nothing.
    """

    rule: str
    disjoint: str
    clusters: list[dict[str, Any]] | None
    hits: list[dict[str, Any]]
    evals: list[dict[str, Any]]
    boilerplate: int


def decide(
    table: RowTable,
    shards: Sequence[Shard],
    sources: Sequence[Source],
    request: PrepareRequest,
    evals: EvalIndex | None,
    folder: Path,
    on_progress: Progress,
) -> Decided:
    """Give every row its split, and a reason to those that are left out.

    Raises:
        InputError: the splits cannot be made as asked.
    """
    rule = _place(table, sources, request)
    steps = 4
    if request.dedup:
        drop_exact(table)
    on_progress("compare", 1, steps, "steps")
    hits, boilerplate = _drop_contaminated(table, shards, evals) if evals is not None else ([], 0)
    on_progress("compare", 2, steps, "steps")
    found = None
    if request.dedup and request.near_duplicates < 1:
        found = _drop_near(table, shards, request.near_duplicates, folder)
    on_progress("compare", 3, steps, "steps")
    if request.stratify:
        assign_by_label(table, _shares(sources, request))
        if request.dedup:
            drop_exact(table)  # rows of sources that name their splits have met the others only now
    drop_split_groups(table)
    if request.limit is not None:
        _limit(table, request.limit)
    disjoint = assert_disjoint(table, strict=request.dedup)
    on_progress("compare", 4, steps, "steps")
    named = None if found is None else _named_clusters(found, shards)
    sets = [{"name": part.name, "items": part.items} for part in evals.sets] if evals is not None else []
    return Decided(rule, disjoint, named, _named_hits(hits, shards), sets, boilerplate)


def _place(table: RowTable, sources: Sequence[Source], request: PrepareRequest) -> str:
    shares = _shares(sources, request)
    rule = parse_time_rule(request.split_by_time)
    if rule is not None:
        starts = assign_by_time(table, parse_ratio(request.split_ratio), rule.starts)
        days = "/".join(datetime.fromtimestamp(start, UTC).isoformat() for start in starts)
        return f"Rows are placed by time: {rule.column}={days}, the moments from which rows are validation and test."
    if request.stratify:
        return "Each label has exact shares, in the order of a hash of each row's group or question."
    assign_by_hash(table, shares)
    return "Rows are placed by a hash of their group or question, so that rows which are added move no others."


def _shares(sources: Sequence[Source], request: PrepareRequest) -> list[Mapping[Any, float]]:
    ratio = parse_ratio(request.split_ratio)
    return [shares_left(ratio, source.taken, source.id) for source in sources]


# --- eval sets --------------------------------------------------------------------------------------------------------


def _drop_contaminated(table: RowTable, shards: Sequence[Shard], evals: EvalIndex) -> tuple[list[Hit], int]:
    """The hits, and how many grams so many rows share that they do not count."""
    verdict = find_hits(evals, list(_matches(shards)), len(table.reason))
    hits = [hit for hit in verdict.hits if not table.official[hit.row] and not table.earlier[hit.row]]
    for field in FIELDS:
        rows = np.array([hit.row for hit in hits if hit.field == field], np.int64)
        rows = rows[table.reason[rows] == KEPT]
        if len(rows):
            table.drop(rows, "decontaminate", f"eval_{field}")
    return hits, sum(ignored.grams_of_many_rows for ignored in verdict.ignored)


def _matches(shards: Sequence[Shard]) -> Iterator[tuple[int, Match]]:
    start = 0
    for shard in shards:
        for row, match in shard.matches:
            yield start + row, match
        start += shard.rows


# --- near-duplicates --------------------------------------------------------------------------------------------------


def _drop_near(
    table: RowTable, shards: Sequence[Shard], threshold: float, folder: Path
) -> list[tuple[int, list[int], list[float]]]:
    """Leave out the rows that nearly repeat a better one."""
    order = table.order()
    rows = np.sort(order)
    if len(rows) < 2:
        return []
    rank = np.empty(len(table.reason), np.int64)
    rank[order] = np.arange(len(order))
    path = folder / "signatures.tmp"
    signatures = _signatures(shards, rows, path)
    found = near_duplicates(signatures, table.guard[rows], rank[rows], threshold)
    groups = []
    for keeper, repeats in clusters(found.keeper):
        kept, dropped, alike = int(rows[keeper]), [], []
        for repeat in repeats:
            row = int(rows[repeat])
            reason = _near_reason(table, kept, row)
            if not table.official[row] and not table.earlier[row]:
                table.drop(row, "dedup", reason)
                dropped.append(row)
                alike.append(round(float(found.similarity[repeat]), 3))
        if dropped:
            groups.append((kept, dropped, alike))
    path.unlink(missing_ok=True)
    return groups


def _near_reason(table: RowTable, kept: int, row: int) -> str:
    if table.earlier[kept]:
        return "near_earlier_corpus"
    if table.split_at(kept) != table.split_at(row):
        return f"near_{SPLITS[table.split_at(kept)]}"
    return "near_duplicate"


def _signatures(shards: Sequence[Shard], rows: Array, path: Path) -> Array:
    """The signatures of some rows, in a file: at a million rows they are a quarter of a gigabyte."""
    made = np.memmap(path, SIGNATURE_DTYPE, "w+", shape=(len(rows), NUM_PERM))
    start = filled = 0
    for shard in shards:
        wanted = rows[np.searchsorted(rows, start) : np.searchsorted(rows, start + shard.rows)] - start
        if len(wanted):
            column = read_columns(shard, ["signature"])["signature"].combine_chunks()
            data = np.frombuffer(column.buffers()[1], SIGNATURE_DTYPE).reshape(-1, NUM_PERM)
            made[filled : filled + len(wanted)] = data[wanted]
            filled += len(wanted)
        start += shard.rows
    made.flush()
    del made
    return np.memmap(path, SIGNATURE_DTYPE, "r", shape=(len(rows), NUM_PERM))


# --- limit and names --------------------------------------------------------------------------------------------------


def _limit(table: RowTable, limit: int) -> None:
    """Keep `limit` rows of each source and split, drawn by hash: files are often sorted by label."""
    rows = np.flatnonzero(table.kept)
    pools = table.source[rows].astype(np.int64) * 4 + table.split[rows]
    ordered = rows[np.lexsort((table.rank[rows], pools))]
    pools = np.sort(pools)
    place = np.arange(len(pools)) - np.searchsorted(pools, pools)
    away = ordered[place >= limit]
    if len(away):
        table.drop(away, "limit", "over_limit")


def _row_names(rows: Sequence[int], shards: Sequence[Shard]) -> dict[int, str]:
    """The ids of some rows."""
    wanted = np.unique(np.array(rows, np.int64))
    names: dict[int, str] = {}
    start = 0
    for shard in shards:
        here = wanted[np.searchsorted(wanted, start) : np.searchsorted(wanted, start + shard.rows)]
        if len(here):
            ids = read_columns(shard, ["id"])["id"].take(here - start).to_pylist()
            names.update(zip(map(int, here), ids, strict=True))
        start += shard.rows
    return names


def _named_clusters(
    found: Sequence[tuple[int, list[int], list[float]]], shards: Sequence[Shard]
) -> list[dict[str, Any]]:
    names = _row_names([row for kept, dropped, _ in found for row in (kept, *dropped)], shards)
    return [
        {"kept": names[kept], "dropped": [names[row] for row in dropped], "similarity": alike}
        for kept, dropped, alike in found
    ]


def _named_hits(hits: Sequence[Hit], shards: Sequence[Shard]) -> list[dict[str, Any]]:
    names = _row_names([hit.row for hit in hits], shards)
    by_row: defaultdict[int, list[Hit]] = defaultdict(list)
    for hit in hits:
        by_row[hit.row].append(hit)
    return [
        {
            "row": names[row],
            "eval_set": hit.eval_set,
            "item": hit.item,
            "field": hit.field,
            "overlap": round(float(hit.overlap), 3),
        }
        for row in sorted(by_row)
        for hit in by_row[row]
    ]
