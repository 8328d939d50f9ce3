"""What a contestant of an evaluation is: a name, and a function that answers the rows of a task."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from finetune.evaluate.answers import Answers
from finetune.scoring.tasks import EvalTask

# "majority" and "sentence" are the baselines of encoders, whose base model has no answers.
Kind = Literal["base", "adapter", "majority", "sentence"]
BASE, ADAPTER = "base", "adapter"  # names of the two contestants of every evaluation
RowsCallback = Callable[[int], None]  # called after each batch with the number of finished rows


@dataclass(frozen=True)
class Contestant:
    """One side of an evaluation; `answer` gives its answers to the rows of a task, in order."""

    name: str
    kind: Kind
    answer: Callable[[EvalTask, RowsCallback], Answers]
