"""Questions to contestants, one after the other in this process or side by side in worker processes."""

from __future__ import annotations

import gc
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, closing
from functools import partial
from typing import NamedTuple

from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.contestant import Contestant
from finetune.evaluate.contestants.lineup import Group
from finetune.machine import peak_bytes
from finetune.scoring.tasks import EvalTask
from finetune.workers import Done, Workers

Message = str | int  # the stage that begins, or the number of rows that have been answered: first 0, then of each batch


class Question(NamedTuple):
    """A task for a contestant; `group` and `task` are numbers."""

    group: int
    name: str
    task: int


Reply = Done[Question, Answers | str]  # the answers, or the reason why there are none
Hear = Callable[[Question, Message], None]


class Asker:
    """Asks contestants, with the weights of one group in memory at a time."""

    def __init__(self, groups: Sequence[Group], tasks: Sequence[EvalTask]) -> None:
        self._groups, self._tasks = groups, tasks
        self._loaded: int | None = None
        self._members: dict[str, Contestant] = {}
        self._weights = ExitStack()

    def __call__(self, question: Question, say: Callable[[Message], None]) -> Answers | str:
        """The answers of a contestant to a task, or the reason why it has none."""
        if question.group != self._loaded:
            self._load(question.group, say)
        contestant, task = self._members[question.name], self._tasks[question.task]
        reason = contestant.refuse(task)
        if reason is not None:
            return reason
        say(0)
        return contestant.answer(task, say)

    def _load(self, number: int, say: Callable[[Message], None]) -> None:
        self.close()
        group = self._groups[number]
        say(f"Loading {', '.join(group.members)}")
        self._members = {one.name: one for one in self._weights.enter_context(group.open())}
        self._loaded = number

    def close(self) -> None:
        """Free the weights."""
        self._loaded = None
        self._members.clear()
        self._weights.close()
        gc.collect()  # weights and the functions that use them refer to each other


def ask(asker: Asker, questions: Sequence[Question], hear: Hear, workers: int) -> Iterator[Reply]:
    """The replies to questions, in any order if there are several workers.

    Raises:
        LostProcessError: a worker has ended.
    """
    workers = min(workers, len(questions))
    if workers > 1:
        yield from _ask_side_by_side(asker, list(questions), hear, workers)
        return
    with closing(asker):
        for question in questions:
            yield Done(question, asker(question, partial(hear, question)), peak_bytes())


def _ask_side_by_side(asker: Asker, waiting: list[Question], hear: Hear, count: int) -> Iterator[Reply]:
    groups: dict[int, int] = {}  # which each worker has in memory
    with Workers[Question, Message, Answers | str](count, asker) as workers:
        while waiting or workers.busy:
            while waiting and (idle := workers.idle) is not None:
                question = _choose(waiting, groups.pop(idle, None), groups.values())
                waiting.remove(question)
                groups[idle] = question.group
                workers.begin(idle, question)
            for event in workers.listen():
                if isinstance(event, Done):
                    yield event
                else:
                    hear(event.item, event.message)


def _choose(waiting: Sequence[Question], own: int | None, others: Collection[int]) -> Question:
    """The next question for a worker: one to the group in its memory, else to a group that no other worker has."""
    return min(waiting, key=lambda question: (question.group != own, question.group in others))
