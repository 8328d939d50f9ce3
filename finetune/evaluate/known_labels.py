"""The labels of a file, beside those that the model was trained on: asked for in the same words, or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from finetune.errors import InputError
from finetune.models.heads import Head
from finetune.recipe import Domain
from finetune.records import Example
from finetune.scoring.tasks import EvalTask, write_labels


@dataclass(frozen=True)
class Known:
    """A task that the model may have been trained on: its name, its choices and a row with its instruction, if there is one."""

    name: str
    choices: tuple[str, ...]
    row: Example | None = None


def known_tasks(own: Iterable[EvalTask], domain: Domain | None, head: Head | None) -> list[Known]:
    """The classification tasks of the corpus and of the domain, and the labels of an encoder."""
    known = [Known(task.name, task.examples[0].choices, task.examples[0]) for task in own]
    known += [Known(name, task.choices) for name, task in (domain.recipe.tasks if domain else {}).items()]
    known += [Known("the adapter", head.labels)] if head else []
    return [one for one in known if one.choices]


def ask_as_in_training(task: EvalTask, known: Sequence[Known]) -> EvalTask:
    """A task of labelled texts with the instruction and the choices of the training, if its labels are among these.

    Raises:
        InputError: some labels are choices of a known task, and others are not.
    """
    choices = task.examples[0].choices
    for other in known:
        spellings = {choice.casefold(): choice for choice in other.choices}
        if choices and {choice.casefold() for choice in choices} <= spellings.keys():
            return replace(task, examples=tuple(_adopt(row, other, spellings) for row in task.examples))
    for other in known:
        outside = [choice for choice in choices if choice.casefold() not in {one.casefold() for one in other.choices}]
        if len(outside) < len(choices):
            first = next(row.id for row in task.examples if {row.label, *(row.labels or ())} & {*outside})
            raise InputError(
                f"{first.partition('/')[2]}: labels of {task.name} are outside the choices of {other.name}: "
                f"{', '.join(outside)}. The choices are {', '.join(other.choices)}. Correct the labels"
            )
    return task


def _adopt(row: Example, known: Known, spellings: Mapping[str, str]) -> Example:
    """A row with the instruction, the choices and the spelling of labels of a known task, and with its examples in a prompt."""
    row = replace(row, source=known.row.source) if known.row else row
    if row.choices == known.choices:
        return row
    label = None if row.label is None else spellings[row.label.casefold()]
    labels = None if row.labels is None else tuple(spellings[one.casefold()] for one in row.labels)
    answer = replace(row.messages[-1], content=label or write_labels(labels or ()))
    turns = (*(turn for turn in row.prompt if known.row is None or turn.role != "system"), answer)
    system = [turn for turn in known.row.prompt if turn.role == "system"] if known.row else []
    return replace(row, label=label, labels=labels, choices=known.choices, messages=(*system, *turns))
