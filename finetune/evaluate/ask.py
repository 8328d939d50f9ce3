"""Asks every contestant every task, one group of contestants after the other, and reports the progress."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.lineup import Group
from finetune.evaluate.progress import Pace, ProgressCallback
from finetune.scoring.tasks import EvalTask

log = logging.getLogger(__name__)

AllAnswers = Mapping[str, Mapping[str, Answers]]  # what each contestant answered, by task and name
AllAbsences = Mapping[str, Mapping[str, str]]  # why a contestant did not, by task and name
StageCallback = Callable[[str], None]  # called with the name of each stage that begins


def ask_all(
    groups: Sequence[Group],
    tasks: Sequence[EvalTask],
    on_progress: ProgressCallback | None = None,
    on_stage: StageCallback | None = None,
) -> tuple[AllAnswers, AllAbsences]:
    """The answers of every contestant to every task, the contestants in the order of their groups, and who is absent."""
    pace = Pace([(name, task) for group in groups for name in group.members for task in tasks], on_progress)
    answers: dict[str, dict[str, Answers]] = {task.name: {} for task in tasks}
    absent: dict[str, dict[str, str]] = {task.name: {} for task in tasks}
    for group in groups:
        if on_stage:
            on_stage(f"Loading {' and '.join(group.members)}")
        with group.open() as contestants:
            for contestant in contestants:
                for task in tasks:
                    if (reason := contestant.refuse(task)) is None:
                        answers[task.name][contestant.name] = contestant.answer(task, pace.start(contestant.name, task))
                    else:
                        absent[task.name][contestant.name] = reason
                        log.warning("%s is left out of %s: %s.", contestant.name, task.name, reason)
                    pace.finish(contestant.name, task)
    return answers, absent
