"""The last stage: from the shards to the corpus, a block at a time."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from finetune.corpus.store import SCHEMA, CorpusWriter
from finetune.prepare.request import PrepareRequest
from finetune.prepare.row_table import RowTable
from finetune.prepare.shards import Shard, read_columns
from finetune.prepare.splits.shares import DEFAULT_RATIO
from finetune.recipe import CUSTOM_DOMAIN, Domain
from finetune.records import SPLITS, TASKS, Drop

WORD_BOUNDS = (8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 2**31)  # of the histogram of lengths


@dataclass
class Tally:
    """What the card, the manifest and the result say of the rows that were written."""

    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)
    labels: dict[str, Counter[str]] = field(default_factory=lambda: defaultdict(Counter))
    by_source: Counter[str] = field(default_factory=Counter)
    by_task: Counter[str] = field(default_factory=Counter)
    words: Counter[int] = field(default_factory=Counter)


def write_rows(
    writer: CorpusWriter,
    shards: Sequence[Shard],
    numbers: RowTable,
    first_drops: Iterable[Drop],
    on_shard: Callable[[int], None],
) -> Tally:
    """Write the kept rows of the shards to their splits, and the others to drops.jsonl."""
    tally, kept = Tally(), numbers.kept
    with (writer.folder / "drops.jsonl").open("w", encoding="utf-8") as out:

        def drop(dropped: Drop) -> None:
            tally.dropped[dropped.step, dropped.reason] += 1
            record = {"id": dropped.id, "step": dropped.step, "reason": dropped.reason}
            out.write(json.dumps(record, ensure_ascii=False) + "\n")

        for dropped in first_drops:
            drop(dropped)
        start = 0
        for number, shard in enumerate(shards):
            rows = slice(start, start + shard.rows)
            start += shard.rows
            if shard.rows and numbers.earlier[rows].any():
                continue
            for dropped in shard.drops:
                drop(dropped)
            table = read_columns(shard, SCHEMA.names)
            away = np.flatnonzero(~kept[rows])
            for name, reason in zip(table["id"].take(away).to_pylist(), numbers.reason[rows][away], strict=True):
                drop(Drop(name, *numbers.reasons[reason]))
            for index, split in enumerate(SPLITS):
                chosen = table.take(np.flatnonzero(kept[rows] & (numbers.split[rows] == index)))
                writer.write(split, chosen)
                _count(tally, chosen)
            on_shard(number + 1)
    bounds, counts = np.unique(np.searchsorted(WORD_BOUNDS, numbers.words[kept]), return_counts=True)
    tally.words.update({WORD_BOUNDS[bound]: int(count) for bound, count in zip(bounds, counts, strict=True)})
    kinds, counts = np.unique(numbers.kind[kept], return_counts=True)
    tally.by_task.update({TASKS[kind]: int(count) for kind, count in zip(kinds, counts, strict=True)})
    return tally


def _count(tally: Tally, table: pa.Table) -> None:
    for source, label in zip(table["source"].to_pylist(), table["label"].to_pylist(), strict=True):
        tally.by_source[source] += 1
        if label is not None:
            tally.labels[source][label] += 1


def describe_request(request: PrepareRequest, uris: Sequence[str], domain: Domain | None) -> dict[str, Any]:
    """The request as the manifest keeps it: what decides the rows, and no path of this machine."""
    hidden = {"output_dir", "overwrite", "workers", "against", "decontaminate", "sources", "accept_noncommercial"}
    values = {item.name: getattr(request, item.name) for item in fields(request) if item.name not in hidden}
    return values | {
        "domain": domain.name if domain else CUSTOM_DOMAIN,
        "sources": list(uris),
        "tasks": sorted(request.tasks),
        "include": sorted(request.include),
        "columns": dict(sorted(request.columns.items())),
        "split_ratio": request.split_ratio or DEFAULT_RATIO,
        "against": [path.name for path in request.against],
        "decontaminate": [uri if "://" in uri else Path(uri).name for uri in request.decontaminate],
    }
