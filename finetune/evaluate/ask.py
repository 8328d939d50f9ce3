"""Asks every contestant every task, and never twice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, RowsCallback
from finetune.evaluate.contestants.lineup import Group
from finetune.evaluate.progress import Pace, ProgressCallback
from finetune.evaluate.store import AnswerStore
from finetune.evaluate.workers import Asker, Message, Question, ask
from finetune.scoring.tasks import EvalTask

log = logging.getLogger(__name__)

AllAnswers = Mapping[str, Mapping[str, Answers]]  # what each contestant answered, by task and name
AllAbsences = Mapping[str, Mapping[str, str]]  # why a contestant did not, by task and name
StageCallback = Callable[[str], None]  # called with the name of each stage that begins


@dataclass(frozen=True)
class Asked:
    """What the contestants answered, who is absent, and the peak memory of the processes that asked, in bytes."""

    answers: AllAnswers
    absent: AllAbsences
    peak: int


def takes_part(name: str, task: EvalTask) -> bool:
    """Whether a contestant answers a task; only base and adapter answer the probe for forgetting."""
    return not task.is_probe or name in (BASE, ADAPTER)


def ask_all(
    groups: Sequence[Group],
    tasks: Sequence[EvalTask],
    store: AnswerStore,
    on_progress: ProgressCallback | None = None,
    on_stage: StageCallback | None = None,
    workers: int = 1,
) -> Asked:
    """The answers of every contestant to every task, the contestants in the order of their groups, and who is absent.

    Stored answers are taken over, and a group whose answers are all stored is not loaded.

    Raises:
        LostProcessError: one of several workers has ended.
    """
    entrants = [(number, name) for number, group in enumerate(groups) for name in group.members]
    identities = {name: identity for group in groups for name, identity in group.members.items()}
    answers = {
        task.name: {name: store.read(task, name, identities[name]) for _, name in entrants if takes_part(name, task)}
        for task in tasks
    }
    absent: dict[str, dict[str, str]] = {task.name: {} for task in tasks}
    questions = [
        Question(group, name, number)
        for group, name in entrants
        for number, task in enumerate(tasks)
        if takes_part(name, task) and answers[task.name][name] is None
    ]
    pace = Pace([(one.name, tasks[one.task]) for one in questions], on_progress, workers=workers)
    counters: dict[Question, RowsCallback] = {}

    def hear(question: Question, message: Message) -> None:
        if message == 0:
            counters[question] = pace.start(question.name, tasks[question.task])
        elif isinstance(message, int):
            counters[question](message)
        elif on_stage:
            on_stage(message)

    peak = 0
    for reply in ask(Asker(groups, tasks), questions, hear, workers):
        name, task = reply.item.name, tasks[reply.item.task]
        if isinstance(reply.result, Answers):
            answers[task.name][name] = reply.result
            store.write(task, name, identities[name], reply.result)
        else:
            absent[task.name][name] = reply.result
            log.warning("%s is left out of %s: %s.", name, task.name, reply.result)
        pace.finish(name, task)
        peak = max(peak, reply.peak)
    return Asked(
        {task: {name: given for name, given in row.items() if given} for task, row in answers.items()},
        {task: {name: row[name] for _, name in entrants if name in row} for task, row in absent.items()},
        peak,
    )
