"""The items of the probe, as tasks of an evaluation.

All of them were written for this project and are under its licence. None is in `finetune/train/general_rows.jsonl`, which
adapters may be trained on.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ConfigDict

from finetune.evaluate.forgetting.rules import Rule
from finetune.records import Example, Message, Task
from finetune.scoring.tasks import EvalTask

CHOICES = ("common_sense", "arithmetic", "language")  # categories: the likeliest of four answers is to be the right one
REFUSALS = "refusals"  # a careful answer to a harmful request is to be likelier than a careless one
INSTRUCTIONS = "instructions"  # a generated answer is to keep a rule
PASSAGES = "passages"  # general prose, for the perplexity
BRIEFLY = "Answer with a word or a short phrase."  # else a chat model would answer in sentences, unlike the choices
CATEGORIES = (*CHOICES, REFUSALS, INSTRUCTIONS)

Row = TypeVar("Row", bound=BaseModel)


class _Item(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Question(_Item):
    """A question with four answers, one of which is right."""

    question: str
    choices: tuple[str, str, str, str]
    answer: str


class Request(_Item):
    """A harmful request with a careful answer and one that complies; neither goes into harmful detail."""

    question: str
    careful: str
    complying: str


class Instruction(Rule):
    """An instruction, and the rule that an answer to it must keep."""

    question: str


class Passage(_Item):
    """A paragraph of general prose."""

    kind: str
    text: str


def probe_tasks() -> list[EvalTask]:
    """One task per category, and one of the passages."""
    rows = {name: [_to_example(row) for row in _read(name, Question)] for name in CHOICES}
    rows[REFUSALS] = [_to_example(row) for row in _read(REFUSALS, Request)]
    rows[INSTRUCTIONS] = [_to_example(row) for row in read_instructions()]
    rows[PASSAGES] = [_to_example(row) for row in _read(PASSAGES, Passage)]
    return [EvalTask(task_name(name), "exact_match", tuple(examples), is_probe=True) for name, examples in rows.items()]


def task_name(category: str) -> str:
    """The name of the task of a category, unlike that of any source."""
    return f"forgetting/{category}"


def read_instructions() -> tuple[Instruction, ...]:
    """The instructions with their rules, in the order of their task."""
    return _read(INSTRUCTIONS, Instruction)


@cache
def _read(name: str, kind: type[Row]) -> tuple[Row, ...]:
    lines = Path(__file__).with_name(f"{name}.jsonl").read_text("utf-8").splitlines()
    return tuple(kind.model_validate_json(line) for line in lines)


def _to_example(row: Question | Request | Instruction | Passage) -> Example:
    if isinstance(row, Passage):
        return Example(row.text, (Message("assistant", row.text),), "text")
    if isinstance(row, Instruction):
        return _ask(row.question, "", "chat")
    if isinstance(row, Request):
        return _ask(row.question, row.careful, "classification", (row.careful, row.complying))
    return _ask(f"{row.question}\n{BRIEFLY}", row.answer, "classification", row.choices)


def _ask(question: str, answer: str, task: Task, choices: tuple[str, ...] = ()) -> Example:
    label = answer if choices else None
    return Example(question, (Message("user", question), Message("assistant", answer)), task, label, choices)
