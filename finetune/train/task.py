"""What a run learns: to write answers, or the head of an encoder, which follows from the rows of the corpus."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

from finetune.artifacts import Corpus
from finetune.corpus.store import iter_split
from finetune.errors import InputError
from finetune.models.heads import Head
from finetune.models.kind import find_kind, require_kind
from finetune.records import Example, Split

Task = Literal["generation", "classification", "extraction"]
AskedTask = Literal["auto", Task]

SHOWN = 3  # ids of rows in a message
USED: tuple[Split, ...] = ("train", "validation")
TRAIN_CAUSAL = "train a causal language model on them, such as --model smollm2-135m, which writes any answer"

NO_LABEL = "have no label"
SEVERAL = "have several labels, or one where others have several"
OTHER_LABELS = "have another set of labels than the first row of the train split"
NO_CONTEXT = "have no context to find an answer in"
NOT_IN_CONTEXT = "have an answer that is not part of their context"
REMEDIES = {
    NO_LABEL: f"Prepare the corpus from labelled sources only, with --task or --include, or {TRAIN_CAUSAL}",
    SEVERAL: "One classifier learns one kind of rows: prepare a corpus from sources of one kind",
    OTHER_LABELS: "One classifier has one set of labels: prepare a corpus from sources with the same labels, and list them "
    "in the recipe if a split lacks some",
    NO_CONTEXT: f"Prepare the corpus from sources with contexts only, or {TRAIN_CAUSAL}",
    NOT_IN_CONTEXT: f"An encoder marks answers and writes none: correct or leave out these rows, or {TRAIN_CAUSAL}",
}


def find_head(folder: Path, asked: AskedTask, corpus: Corpus) -> Head | None:
    """The head that an encoder gets for the rows of a corpus; None for a causal language model, which needs none.

    Raises:
        InputError: the model is of the wrong kind for the task, or rows do not fit it: they have no label, other labels than
            the first row, or no answer that is part of their context.
    """
    if asked == "generation" or (asked == "auto" and find_kind(folder) == "causal"):
        require_kind(folder, "causal")
        return None
    require_kind(folder, "encoder")
    task = asked if asked != "auto" else _guess_task(corpus)
    head = _require_contexts(corpus) if task == "extraction" else _read_labels(corpus)
    for split in USED:
        _check_rows(iter_split(corpus, split), head, f"the {split} split of {corpus.path}")
    return head


def task_of(head: Head | None) -> Task:
    """What a model with this head learns."""
    if head is None:
        return "generation"
    return "extraction" if head.kind == "extraction" else "classification"


def _guess_task(corpus: Corpus) -> Task:
    for example in iter_split(corpus, "train"):
        if example.choices:
            return "classification"
        if example.context is not None:
            return "extraction"
    raise InputError(
        f"The corpus at {corpus.path} has neither labels nor answers from a context, and an encoder learns nothing else: "
        f"prepare one with them, or {TRAIN_CAUSAL}"
    )


def _require_contexts(corpus: Corpus) -> Head:
    if any(example.context is not None for example in iter_split(corpus, "train")):
        return Head("extraction")
    raise InputError(
        f"The corpus at {corpus.path} has no contexts that answers could be found in. Prepare it from rows with a question, "
        f"a context and an answer that the context contains, or {TRAIN_CAUSAL}"
    )


def _read_labels(corpus: Corpus) -> Head:
    for example in iter_split(corpus, "train"):
        if example.choices:
            return Head("classification" if example.labels is None else "multi-label", example.choices)
    raise InputError(
        f"The corpus at {corpus.path} has no labels that could be learnt. Prepare it from rows with a label, or {TRAIN_CAUSAL}"
    )


def _check_rows(examples: Iterable[Example], head: Head, place: str) -> None:
    """Refuse rows that the head cannot learn."""
    problems: dict[str, list[str]] = {}
    count = 0
    for example in examples:
        count += 1
        if problem := _find_problem(example, head):
            problems.setdefault(problem, []).append(example.id)
    if problems:
        problem, ids = next(iter(problems.items()))
        raise InputError(f"{len(ids)} of {count} rows in {place} {problem}: {_name(ids)}. {REMEDIES[problem]}")


def _find_problem(example: Example, head: Head) -> str | None:
    if head.kind == "extraction":
        if example.context is None:
            return NO_CONTEXT
        answer = example.answer.strip()
        return None if answer and answer in example.context else NOT_IN_CONTEXT
    if not example.choices:
        return NO_LABEL
    if (example.labels is not None) != (head.kind == "multi-label"):
        return SEVERAL
    given = example.labels if example.labels is not None else (str(example.label),)
    return None if example.choices == head.labels and set(given) <= set(head.labels) else OTHER_LABELS


def _name(ids: Sequence[str]) -> str:
    return ", ".join(ids[:SHOWN]) + (" …" if len(ids) > SHOWN else "")
