"""The tasks of an evaluation: the rows of a split by source, each task with its metric."""

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
    """Rows that are scored together as one task."""

    name: str
    metric: Metric
    examples: tuple[Example, ...]


def tasks_of(corpus: Corpus, split: Split, names: Sequence[str] = (), limit: int | None = None) -> list[EvalTask]:
    """Group the rows of a split into tasks, one per source, each with at most `limit` rows drawn by a hash of their ids.

    Raises:
        InputError: the split has no rows to evaluate on.
        UnknownNameError: a requested task does not exist.
    """
    groups: dict[tuple[str, Metric], list[Example]] = {}
    for example in read_split(corpus, split):
        if example.task == "preference":
            raise InputError(
                f"The {split} split of {corpus.path} has rows for preference tuning, which slmtune eval does not score yet. "
                "Evaluate on a corpus of questions and answers; --ignore rejected prepares one from the preferred answers"
            )
        if example.task == "text":
            continue  # rows of continued pretraining have no question
        metric: Metric = "weighted_f1" if example.choices and example.labels is None else "token_f1"
        groups.setdefault((example.source, metric), []).append(example)
    if not groups:
        raise InputError(
            f"The {split} split of {corpus.path} has no rows to evaluate on. Prepare a corpus with --split-ratio"
        )
    sources = [source for source, _ in groups]
    tasks = [
        EvalTask(
            source if sources.count(source) == 1 else f"{source}-{metric.removesuffix('_f1')}",
            metric,
            tuple(sorted(rows, key=hash_id)[:limit]),
        )
        for (source, metric), rows in groups.items()
    ]
    for name in names:
        if name not in {task.name for task in tasks}:
            raise UnknownNameError("task", name, [task.name for task in tasks])
    return [task for task in tasks if not names or task.name in names]


def hash_id(example: Example) -> bytes:
    """A sort key unrelated to the order of the file: data sets are often sorted by label."""
    return hashlib.sha256(example.id.encode()).digest()
