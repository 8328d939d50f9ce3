"""Rows of an evaluation on which the adapter was trained: refused, or counted and left out of a second figure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from finetune.artifacts import Adapter, Corpus
from finetune.errors import InputError
from finetune.evaluate.answers import Answers
from finetune.evaluate.request import CleanScore, TaskScore
from finetune.scoring.tasks import EvalTask
from finetune.train.trained_rows import find_trained_rows, hash_rows

# Of each task, the numbers of the rows that the adapter was trained on.
Seen = Mapping[str, frozenset[int]]


def find_seen(adapter: Adapter, corpus: Corpus | None, tasks: Sequence[EvalTask], *, allowed: bool) -> Seen | None:
    """The rows of each task that the adapter was trained on; None if this machine does not know on which it was.

    Raises:
        InputError: there are some, and they are not allowed.
    """
    trained = find_trained_rows(adapter.manifest, corpus)
    if trained is None:
        return None
    seen = {task.name: frozenset(np.flatnonzero(np.isin(hash_rows(task.examples), trained)).tolist()) for task in tasks}
    for task in tasks:
        if seen[task.name] and not allowed:
            raise InputError(
                f"The adapter was trained on {len(seen[task.name])} of the {len(task.examples)} rows of {task.name}, such as "
                f"{task.examples[min(seen[task.name])].id}: figures would show what it remembers. Evaluate on other rows, or "
                "pass --allow-train-overlap for figures with and without these"
            )
    return seen


def add_overlap(
    score: TaskScore,
    task: EvalTask,
    answers: Mapping[str, Answers],
    seen: Seen | None,
    rescore: Callable[[EvalTask, Mapping[str, Answers]], TaskScore],
) -> TaskScore:
    """The figures of a task with the number of rows that the adapter was trained on and, if any, the figures without these."""
    if seen is None:
        return score
    trained = seen[task.name]
    others = [number for number in range(len(task.examples)) if number not in trained]
    if not trained or not others:
        return replace(score, train_overlap=len(trained))
    part = replace(task, examples=tuple(task.examples[number] for number in others))
    clean = rescore(part, {name: given.take(others) for name, given in answers.items()})
    kept = CleanScore(clean.n, clean.base, clean.adapter, clean.delta, clean.ci95)
    return replace(score, train_overlap=len(trained), clean=kept)
