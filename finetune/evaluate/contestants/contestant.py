"""What a contestant of an evaluation is: a name, and a function that answers the rows of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finetune.evaluate.answers import Answers
from finetune.scoring.tasks import EvalTask

# "majority" and "sentence" are the baselines of encoders, whose base model has no answers; "rival" is one that --vs names.
Kind = Literal["base", "few_shot", "adapter", "majority", "sentence", "rival"]
BASE, FEW_SHOT, ADAPTER = "base", "few_shot", "adapter"  # names that no rival may have
RowsCallback = Callable[[int], None]  # called after each batch with the number of finished rows


def _accept(task: EvalTask) -> str | None:
    return None


@dataclass(frozen=True)
class Contestant:
    """One side of an evaluation; `answer` gives its answers to the rows of a task, in order.

    `refuse` says why it cannot answer a task, or None: it is then left out of that task. Base and adapter answer every task.
    """

    name: str
    kind: Kind
    answer: Callable[[EvalTask, RowsCallback], Answers]
    refuse: Callable[[EvalTask], str | None] = _accept
