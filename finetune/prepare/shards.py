"""Shards: the result of each block, as an Arrow file in the work folder, written by workers and read by later stages.

A shard contains the rows of the corpus and, for each row, the few numbers that later stages need for their decisions, so
that these stages do not have to hold text. A shard is renamed into place once it is complete, so an interrupted run finds
its finished shards.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from finetune.artifacts import write_aside
from finetune.corpus.store import schema_of, to_columns
from finetune.prepare.decontaminate.eval_index import Match
from finetune.prepare.dedup.guard import guard
from finetune.prepare.dedup.keys import answer_digest, asked_text, compared_text, question_digest, wording
from finetune.prepare.dedup.signature import NUM_PERM, SIGNATURE_DTYPE, sign
from finetune.prepare.drops import Drops
from finetune.prepare.row_table import OPEN, Array, RowTable
from finetune.prepare.rows.candidate import Candidate
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.make import make_rows
from finetune.prepare.rows.part import Part
from finetune.records import SPLITS, TASKS, Drop, UnusedKind

NUMBERS = {
    "key": pa.binary(16),
    "answer": pa.binary(8),
    "wording": pa.uint64(),
    "draw": pa.uint64(),
    "rank": pa.uint64(),
    "split": pa.int8(),
    "official": pa.bool_(),
    "kind": pa.int8(),
    "words": pa.uint32(),
    "length": pa.uint32(),
    "timestamp": pa.float64(),
    "guard": pa.uint64(),
    "signature": pa.binary(NUM_PERM * SIGNATURE_DTYPE().itemsize),
}
NOTHING = int.from_bytes(hashlib.sha256(b"").digest()[:8])  # the number of an empty text


@dataclass(frozen=True)
class Shard:
    """One file and the counts of its block (see `Drops`); `matches` are rows that share words with an eval set.

    `schema` is that of its rows in a corpus.
    """

    path: Path
    schema: pa.Schema
    rows: int
    part: int
    read: int
    drops: tuple[Drop, ...]
    unused: Mapping[tuple[str, UnusedKind, str], int]
    scrubbed: Mapping[str, int]
    cleaned: Mapping[str, int]
    test_ids: frozenset[str]
    matches: tuple[tuple[int, Match], ...]


def shard_path(folder: Path, part: int, block: int) -> Path:
    """The path of the shard of a block of a part."""
    return folder / f"rows-{part:06d}-{block:06d}.arrow"


def make_shard(job: Job, block: Block) -> Path:
    """Turn a block into its shard.

    Raises:
        RecordError: see `make_rows`.
    """
    drops = Drops(job.request.on_error)
    rows = make_rows(job, block, drops)
    counts = {
        "part": block.part,
        "read": drops.read,
        "drops": [[drop.id, drop.step, drop.reason] for drop in drops.items],
        "unused": [[*key, count] for key, count in sorted(drops.unused.items())],
        "scrubbed": dict(sorted(drops.scrubbed.items())),
        "cleaned": dict(sorted(drops.cleaned.items())),
        "test_ids": sorted(drops.test_ids),
        "matches": _matches(job, rows),
    }
    table = _table(job, rows).replace_schema_metadata({"slmtune": json.dumps(counts)})
    path = shard_path(job.folder, block.part, block.number)
    with (
        write_aside(path) as staging,
        pa.OSFile(str(staging), "wb") as sink,
        pa.ipc.new_file(sink, table.schema) as writer,
    ):
        writer.write_table(table)
    return path


def open_shard(path: Path) -> Shard:
    """The counts of a shard, without its rows."""
    with pa.OSFile(str(path), "rb") as source:
        file = pa.ipc.open_file(source)
        counts = json.loads(file.schema.metadata[b"slmtune"])
        schema = pa.schema([field for field in file.schema if field.name not in NUMBERS])
        rows = sum(file.get_batch(number).num_rows for number in range(file.num_record_batches))
    return Shard(
        path,
        schema,
        rows,
        counts["part"],
        counts["read"],
        tuple(Drop(*drop) for drop in counts["drops"]),
        {(source, kind, name): count for source, kind, name, count in counts["unused"]},
        counts["scrubbed"],
        counts["cleaned"],
        frozenset(counts["test_ids"]),
        tuple((row, Match(item, field, tuple(grams))) for row, item, field, grams in counts["matches"]),
    )


def read_columns(path: Path, names: Sequence[str]) -> pa.Table:
    """The given columns of a shard; the others are not read."""
    with pa.OSFile(str(path), "rb") as source:
        order = pa.ipc.open_file(source).schema.names
        options = pa.ipc.IpcReadOptions(included_fields=[order.index(name) for name in names])
        return pa.ipc.open_file(source, options=options).read_all().select(list(names))


def collect_rows(shards: Sequence[Shard], parts: Sequence[Part], sources: Sequence[str]) -> RowTable:
    """Read the numbers of all shards; `sources` are the ids of the sources, in order."""
    names = [name for name in NUMBERS if name != "signature"]
    columns: dict[str, list[Array]] = {name: [] for name in [*names, "label", "grouped", "source", "earlier"]}
    labels: dict[str, int] = {}
    several: dict[int, list[list[int]]] = {}  # number of the shard -> numbers of the labels of each row
    for position, shard in enumerate(shards):
        lists = [name for name in shard.schema.names if name == "labels"]
        table = read_columns(shard.path, [*names, "label", "group", *lists])
        part = parts[shard.part]
        for name in names:
            columns[name].append(_array(table[name], name))
        texts = table["label"].to_pylist()
        columns["label"].append(
            np.array([-1 if text is None else labels.setdefault(text, len(labels)) for text in texts], np.int32)
        )
        for name in lists:
            rows = table[name].to_pylist()
            several[position] = [[labels.setdefault(label, len(labels)) for label in row or ()] for row in rows]
        columns["grouped"].append(pc.is_valid(table["group"]).to_numpy())
        columns["source"].append(np.full(shard.rows, sources.index(part.source.id), np.int32))
        columns["earlier"].append(np.full(shard.rows, part.source.earlier))
    _number_of_rarest(columns["label"], several)
    joined: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    return RowTable(**joined, reason=np.zeros(len(joined["source"]), np.uint8))


def _number_of_rarest(labels: Sequence[Array], several: Mapping[int, Sequence[Sequence[int]]]) -> None:
    """Fill in the number of a label for rows with several (of the shards in `several`): of the rarest, the hardest to share."""
    counts = Counter(number for rows in several.values() for numbers in rows for number in numbers)
    counts.update(number for array in labels for number in array.tolist())
    for shard, rows in several.items():
        for row, numbers in enumerate(rows):
            if numbers:
                labels[shard][row] = min(numbers, key=lambda number: (counts[number], number))


def _array(column: Any, name: str) -> Array:
    chunked = column.combine_chunks()
    if name in {"key", "answer"}:
        width = 2 if name == "key" else 1
        data = np.frombuffer(chunked.buffers()[1], np.uint64)[chunked.offset * width :][: len(chunked) * width]
        return data.reshape(-1, 2).copy() if name == "key" else data.copy()
    if name == "timestamp":
        return np.asarray(chunked.to_numpy(zero_copy_only=False), np.float64)
    return np.asarray(chunked.to_numpy(zero_copy_only=False)).copy()


def number_rows(shards: Sequence[Shard]) -> Iterator[tuple[Shard, slice]]:
    """Each shard with the numbers of its rows among all rows."""
    start = 0
    for shard in shards:
        yield shard, slice(start, start + shard.rows)
        start += shard.rows


def _matches(job: Job, rows: Sequence[Candidate]) -> list[list[Any]]:
    if job.evals is None or not rows:
        return []
    matches = job.evals.match_rows([row.question for row in rows], [row.answer for row in rows])
    return [[row, match.item, match.field, list(match.grams)] for row, match in matches]


def _table(job: Job, rows: Sequence[Candidate]) -> pa.Table:
    examples = [row.example for row in rows]
    keys = [question_digest(row.compared) for row in rows]
    compared = [compared_text(row.compared, row.context) for row in rows]
    signed = (
        sign(compared) if job.request.near_duplicates < 1 and rows else np.zeros((len(rows), NUM_PERM), SIGNATURE_DTYPE)
    )
    texts = [[turn.text for turn in example.turns] for example in examples]
    schema = pa.schema([*schema_of(examples), *NUMBERS.items()])
    data: dict[str, Any] = {
        **to_columns(examples),
        "key": [key[:16] for key in keys],
        "answer": [answer_digest(row.compared, key) for row, key in zip(rows, keys, strict=True)],
        "wording": [_number(wording(row.compared)) for row in rows],
        "draw": [_number(f"{job.request.seed}:{e.group or key.hex()}") for e, key in zip(examples, keys, strict=True)],
        "rank": [_number(f"{job.request.seed}:{example.id}") for example in examples],
        "split": [OPEN if row.origin.split is None else SPLITS.index(row.origin.split) for row in rows],
        "official": [row.origin.official for row in rows],
        "kind": [TASKS.index(example.task) for example in examples],
        "words": [sum(text.count(" ") + 1 for text in turns) for turns in texts],
        "length": [sum(map(len, turns)) for turns in texts],
        "timestamp": [row.origin.timestamp for row in rows],
        "guard": _guards(rows, compared),
    }
    columns = {name: pa.array(data[name], schema.field(name).type) for name in schema.names if name in data}
    packed = pa.py_buffer(np.ascontiguousarray(signed))
    columns["signature"] = pa.Array.from_buffers(NUMBERS["signature"], len(rows), [None, packed])
    return pa.table([columns[name] for name in schema.names], schema=schema)


def _guards(rows: Sequence[Candidate], compared: Sequence[str]) -> list[int]:
    """The guards of the rows; texts with different labels are never near-duplicates of each other."""
    guarded = [
        asked_text(row.compared, row.context) if row.example.task == "qa" else text
        for row, text in zip(rows, compared, strict=True)
    ]
    guards = guard(guarded).tolist()
    return [
        each ^ (_number(row.example.answer) if row.example.task == "classification" else 0)
        for each, row in zip(guards, rows, strict=True)
    ]


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) if text else NOTHING
