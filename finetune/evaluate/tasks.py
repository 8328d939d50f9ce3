"""What is evaluated: the rows of a corpus split, by source, each with the metric of its kind."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, UnknownNameError
from finetune.records import Example, Split

Metric = Literal["weighted_f1", "token_f1"]


@dataclass(frozen=True)
class EvalTask:
    """Rows that are scored together."""

    name: str
    metric: Metric
    examples: tuple[Example, ...]


def tasks_of(corpus: Corpus, split: Split, wanted: Sequence[str] = (), limit: int | None = None) -> list[EvalTask]:
    """Group a split's rows into tasks named by their source; at most `limit` rows per task, drawn by their ids' hash.

    Raises:
        InputError: the split has no rows to ask about.
        UnknownNameError: a wanted task is not there.
    """
    groups: dict[tuple[str, Metric], list[Example]] = {}
    for example in read_split(corpus, split):
        if example.task == "text":
            continue  # continued pretraining has no question to ask
        metric: Metric = "weighted_f1" if example.choices else "token_f1"
        groups.setdefault((example.source, metric), []).append(example)
    if not groups:
        raise InputError(
            f"The {split} split of {corpus.path} has no rows to evaluate. Prepare a corpus with --split-ratio"
        )
    sources = [source for source, _ in groups]
    tasks = [
        EvalTask(
            source if sources.count(source) == 1 else f"{source}-{metric.removesuffix('_f1')}",
            metric,
            tuple(sorted(rows, key=_drawn)[:limit]),
        )
        for (source, metric), rows in groups.items()
    ]
    for name in wanted:
        if name not in {task.name for task in tasks}:
            raise UnknownNameError("task", name, [task.name for task in tasks])
    return [task for task in tasks if not wanted or task.name in wanted]


def _drawn(example: Example) -> bytes:
    """An order that no file has: data sets are often sorted by label."""
    return hashlib.sha256(example.id.encode()).digest()
