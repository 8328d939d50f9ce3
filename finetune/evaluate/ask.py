"""Asks every contestant every task, one group of contestants after the other, and never twice."""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence

from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.contestant import ADAPTER, BASE
from finetune.evaluate.contestants.lineup import Group
from finetune.evaluate.progress import Pace, ProgressCallback
from finetune.evaluate.store import AnswerStore
from finetune.scoring.tasks import EvalTask

log = logging.getLogger(__name__)

AllAnswers = Mapping[str, Mapping[str, Answers]]  # what each contestant answered, by task and name
AllAbsences = Mapping[str, Mapping[str, str]]  # why a contestant did not, by task and name
StageCallback = Callable[[str], None]  # called with the name of each stage that begins


def takes_part(name: str, task: EvalTask) -> bool:
    """Whether a contestant answers a task; only base and adapter answer the probe for forgetting."""
    return not task.is_probe or name in (BASE, ADAPTER)


def ask_all(
    groups: Sequence[Group],
    tasks: Sequence[EvalTask],
    store: AnswerStore,
    on_progress: ProgressCallback | None = None,
    on_stage: StageCallback | None = None,
) -> tuple[AllAnswers, AllAbsences]:
    """The answers of every contestant to every task, the contestants in the order of their groups, and who is absent.

    Stored answers are taken over, and a group whose answers are all stored is not loaded.
    """
    entrants = [(name, identity) for group in groups for name, identity in group.members.items()]
    answers = {
        task.name: {name: store.read(task, name, identity) for name, identity in entrants if takes_part(name, task)}
        for task in tasks
    }
    absent: dict[str, dict[str, str]] = {task.name: {} for task in tasks}
    pending = [
        (name, task)
        for name, _ in entrants
        for task in tasks
        if takes_part(name, task) and answers[task.name][name] is None
    ]
    pace = Pace(pending, on_progress)
    for group in groups:
        left = [(name, task) for name, task in pending if name in group.members]
        if not left:
            continue
        if on_stage:
            on_stage(f"Loading {', '.join(group.members)}")
        for name, task, given in _ask_group(group, left, pace):
            if isinstance(given, Answers):
                answers[task.name][name] = given
                store.write(task, name, group.members[name], given)
            else:
                absent[task.name][name] = given
                log.warning("%s is left out of %s: %s.", name, task.name, given)
            pace.finish(name, task)
        gc.collect()  # weights and the functions that use them refer to each other
    return {task: {name: given for name, given in row.items() if given} for task, row in answers.items()}, absent


def _ask_group(
    group: Group, pairs: Sequence[tuple[str, EvalTask]], pace: Pace
) -> Iterator[tuple[str, EvalTask, Answers | str]]:
    """The answers of the members of a group, or the reason why one has none; no member outlives the generator."""
    with group.open() as contestants:
        members = {contestant.name: contestant for contestant in contestants}
        for name, task in pairs:
            reason = members[name].refuse(task)
            yield name, task, members[name].answer(task, pace.start(name, task)) if reason is None else reason
