"""The labels of a file, beside those that the model was trained on: asked for in the same words, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.models.heads import Head
from finetune.recipe import Domain
from finetune.records import Example, Message
from finetune.scoring.label_tasks import LabelTask, domain_label_tasks, label_tasks_of, read_label_tasks
from finetune.scoring.tasks import EvalTask, write_labels


def known_tasks(own: Iterable[EvalTask], adapter: Adapter, domain: Domain | None, head: Head | None) -> list[LabelTask]:
    """The label tasks of the corpus, of the adapter's training and of the domain, and the labels of an encoder."""
    known = [each for task in own for each in read_label_tasks(task.examples, [])]
    known += label_tasks_of(adapter.manifest)
    known += domain_label_tasks(domain) if domain else []
    known += [LabelTask("the adapter", head.labels)] if head else []
    return [one for one in known if one.labels]


def ask_as_in_training(task: EvalTask, known: Sequence[LabelTask]) -> EvalTask:
    """A task of labelled texts with the instruction and the choices of the training, if its labels are among these.

    Raises:
        InputError: some labels are choices of a known task, and others are not.
    """
    choices = task.examples[0].choices
    for other in known:
        spellings = {choice.casefold(): choice for choice in other.labels}
        if choices and {choice.casefold() for choice in choices} <= spellings.keys():
            return replace(task, examples=tuple(_adopt(row, other, spellings) for row in task.examples))
    for other in known:
        outside = [choice for choice in choices if choice.casefold() not in {one.casefold() for one in other.labels}]
        if len(outside) < len(choices):
            first = next(row.id for row in task.examples if {row.label, *(row.labels or ())} & {*outside})
            raise InputError(
                f"{first.partition('/')[2]}: labels of {task.name} are outside the choices of {other.name}: "
                f"{', '.join(outside)}. The choices are {', '.join(other.labels)}. Correct the labels"
            )
    return task


def _adopt(row: Example, known: LabelTask, spellings: Mapping[str, str]) -> Example:
    """A row with the instruction, the choices and the spelling of labels of a known task, and with its examples in a prompt."""
    label = None if row.label is None else spellings[row.label.casefold()]
    labels = None if row.labels is None else tuple(spellings[one.casefold()] for one in row.labels)
    answer = replace(row.messages[-1], content=label or write_labels(labels or ()))
    system = [Message("system", known.instruction)] if known.instruction else []
    messages = (*system, *(turn for turn in row.prompt if turn.role != "system"), answer)
    source = known.source or row.source
    return replace(row, label=label, labels=labels, choices=known.labels, messages=messages, source=source)
