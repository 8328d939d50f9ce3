"""The tasks of an evaluation: the rows of a split by source, each task with its metric."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from finetune.artifacts import Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, UnknownNameError
from finetune.models.heads import HeadKind
from finetune.records import NO_LABEL, SEPARATOR, Example, Split, TextMetric
from finetune.scoring.texts import TASK_METRICS, available

Metric = Literal[TextMetric, "weighted_f1", "micro_f1", "answer_f1", "preference_accuracy"]
HEAD_METRICS: Mapping[HeadKind, Metric] = {
    "classification": "weighted_f1",
    "multi-label": "micro_f1",
    "extraction": "answer_f1",
}


@dataclass(frozen=True)
class EvalTask:
    """Rows that are scored together as one task, by `metric`; `further` metrics of generated answers are beside it.

    A task of the probe for forgetting is answered by base and adapter only.
    """

    name: str
    metric: Metric
    examples: tuple[Example, ...]
    further: tuple[TextMetric, ...] = ()
    is_probe: bool = False


def tasks_of(
    corpus: Corpus,
    split: Split,
    names: Sequence[str] = (),
    limit: int | None = None,
    head: HeadKind | None = None,
    place: str = "",
) -> list[EvalTask]:
    """Group the rows of a split into tasks, one per source, each with at most `limit` rows drawn by a hash of their ids.

    The head of an encoder decides how all rows are scored; without one, each row does. `place` is where the rows come from,
    for errors: by default the folder of the corpus.

    Raises:
        InputError: the split has no rows to evaluate on, or rows of preferences that are no pairs or not for an encoder.
        UnknownNameError: a requested task does not exist.
    """
    place = place or str(corpus.path)
    groups: dict[tuple[str, Metric], list[Example]] = {}
    chosen = {source["id"]: source.get("metrics", ()) for source in corpus.manifest.get("sources", ())}
    for example in read_split(corpus, split):
        if example.task == "preference" and (head or not example.rejected):
            reason = "an encoder has no preferences" if head else "it has no rejected answer beside a chosen one"
            raise InputError(
                f"Row {example.id} of the {split} split of {place}, for preference tuning, is not scored: {reason}. "
                "Evaluate on a corpus of questions and answers; --ignore rejected prepares one from the preferred answers"
            )
        if example.task == "text":
            continue  # rows of continued pretraining have no question
        metric = HEAD_METRICS[head] if head else _metric_of(example, chosen.get(example.source, ()))
        groups.setdefault((example.source, metric), []).append(example)
    if not groups:
        raise InputError(
            f"The {split} split of {place} has no rows to evaluate on. Prepare a corpus with --split-ratio"
        )
    sources = [source for source, _ in groups]
    tasks = [
        EvalTask(
            source if sources.count(source) == 1 else f"{source}-{metric.removesuffix('_f1')}",
            metric,
            tuple(sorted(rows, key=lambda row: hash_id(row.id))[:limit]),
            tuple(available(chosen[source][1:])) if metric in chosen.get(source, ())[:1] else (),
        )
        for (source, metric), rows in groups.items()
    ]
    for name in names:
        if name not in {task.name for task in tasks}:
            raise UnknownNameError("task", name, [task.name for task in tasks])
    return [task for task in tasks if not names or task.name in names]


def reference_labels(example: Example) -> tuple[str, ...]:
    """The expected labels of a row, of which it may have one or several."""
    return (example.label,) if example.label is not None else (example.labels or ())


def write_labels(labels: Sequence[str]) -> str:
    """Labels as an answer; `read_labels` reads it."""
    return SEPARATOR.join(labels) or NO_LABEL


def read_labels(answer: str, choices: Sequence[str]) -> tuple[str, ...]:
    """The choices that an answer lists, in their order; case does not count, and anything else is ignored."""
    parts = {part.strip().casefold() for part in answer.split(SEPARATOR.strip())}
    return tuple(choice for choice in choices if choice.casefold() in parts)


def _metric_of(example: Example, chosen: Sequence[TextMetric]) -> Metric:
    """The headline metric of a row: of a generated answer, the first one that its source has `chosen`."""
    if example.task == "preference":
        return "preference_accuracy"
    if example.labels is not None:
        return "micro_f1"
    if example.choices:
        return "weighted_f1"
    return chosen[0] if chosen else TASK_METRICS.get(example.task, "token_f1")


def hash_id(row: str) -> bytes:
    """A sort key for rows by their ids, unrelated to the order of the file: data sets are often sorted by label."""
    return hashlib.sha256(row.encode()).digest()
