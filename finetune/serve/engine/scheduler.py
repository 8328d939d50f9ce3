"""Continuous batching: one thread that extends all running sequences step by step; requests join and leave at every step."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from finetune.errors import DeadlineError, SlmtuneError
from finetune.serve.engine.answer import Answer
from finetune.serve.engine.job import GenerationJob, Result
from finetune.serve.engine.job_queue import JobQueue, failure_of, stop_error
from finetune.serve.engine.sampling import Sampler
from finetune.serve.runners.runner import Extension, Runner

OLDEST = 4  # the oldest prompt gets at least this part of the tokens of a step
TOO_LARGE = "Shorten the prompt or lower max_tokens"
T = TypeVar("T")


@dataclass(eq=False)
class Run:
    """A running request: its slot, the tokens that the model has yet to see, and the number of those it found in the cache."""

    job: GenerationJob
    sampler: Sampler
    answer: Answer
    slot: int
    unseen: tuple[int, ...]
    cached: int


@dataclass(frozen=True, eq=False)
class Task:
    """Something to do between two steps, once no request needs `adapter` any more."""

    adapter: str | None
    action: Callable[[], Any]
    outcome: Future[Any]


class Scheduler(JobQueue[GenerationJob]):
    """Runs jobs on a runner, as many at once as it has slots, behind a bounded queue.

    A free slot goes to the client with the fewest running requests, then to the one whose turn was longest ago, then to the
    request that arrived first. In a step, the shortest prompts are computed first, so that a long one does not stall the
    others; the oldest prompt always gets a part.
    `begin` returns what chooses the tokens of a job and what receives them.
    """

    def __init__(
        self, runner: Runner, begin: Callable[[GenerationJob], tuple[Sampler, Answer]], queue_size: int
    ) -> None:
        self._runner, self._begin = runner, begin
        self._running: list[Run] = []
        self._tasks: list[Task] = []
        self._turns: dict[str, int] = {}  # the number of each client's last admission
        super().__init__(capacity=runner.slots + queue_size)

    def call(self, action: Callable[[], T], adapter: str | None = None) -> T:
        """Run a function between two steps, once no request needs `adapter` any more, and return its result.

        Raises:
            EngineStoppedError: the scheduler was closed before.
        """
        outcome: Future[T] = Future()
        with self._changed:
            if not self.alive:
                raise stop_error()
            self._tasks.append(Task(adapter, action, outcome))
            self._changed.notify()
        return outcome.result()

    def close(self) -> None:
        """Refuse new jobs and tasks, and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        super().close()
        with self._changed:
            tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.outcome.set_exception(stop_error())

    def _in_progress(self) -> list[GenerationJob]:
        return [run.job for run in self._running]

    def _work(self) -> None:
        while self._wait():
            self._run_tasks()
            self._end_overdue()
            self._admit()
            if self._running:
                self._step(list(self._running))

    def _wait(self) -> bool:
        """Wait for something to do; False: the scheduler was closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._running or self._tasks or self._closed)
            return not self._closed

    def _run_tasks(self) -> None:
        with self._changed:
            jobs = [*self._in_progress(), *self._waiting]
            needed = {job.adapter for job in jobs}
            ready = [task for task in self._tasks if task.adapter is None or task.adapter not in needed]
            self._tasks = [task for task in self._tasks if task not in ready]
        for task in ready:
            try:
                task.outcome.set_result(task.action())
            except BaseException as error:
                task.outcome.set_exception(error)  # the caller must never wait for ever
                if not isinstance(error, Exception):
                    raise

    def _end_overdue(self) -> None:
        """End running jobs that were cancelled, and all whose deadline has passed."""
        now = time.monotonic()
        with self._changed:
            overdue = [job for job in self._waiting if job.is_overdue(now)]
            for job in overdue:
                self._waiting.remove(job)
        for job in overdue:
            job.report(DeadlineError())
        for run in list(self._running):
            if run.job.cancelled.is_set():
                self._end(run, run.answer.finish("cancelled"))
            elif run.job.is_overdue(now):
                self._end(run, DeadlineError())

    def _admit(self) -> None:
        while (job := self._take()) is not None:
            failure: SlmtuneError | None = stop_error()
            try:
                sampler, answer = self._begin(job)
                opened = self._runner.open(job.prompt, job.adapter)
                with self._changed:
                    unseen = job.prompt[opened.cached :]
                    self._running.append(Run(job, sampler, answer, opened.slot, unseen, opened.cached))
                failure = None
            except Exception as error:
                failure = failure_of(error, TOO_LARGE)
            finally:  # also if the error ends this thread: nobody must wait for an answer that cannot come
                if failure is not None:
                    job.report(failure)

    def _take(self) -> GenerationJob | None:
        """The job whose turn it is, if there is a free slot and room for its tokens."""
        with self._changed:
            if not self._waiting or len(self._running) >= self._runner.slots:
                return None
            counts = Counter(run.job.params.client for run in self._running)
            clients = [job.params.client for job in self._waiting]
            number = min(range(len(clients)), key=lambda at: (counts[clients[at]], self._turns.get(clients[at], 0), at))
            job = self._waiting[number]
            if self._running and job.size + sum(run.job.size for run in self._running) > self._runner.room:
                return None
            turn = max(self._turns.values(), default=0) + 1
            self._turns = {name: last for name, last in self._turns.items() if name in clients}
            self._turns[clients[number]] = turn
            del self._waiting[number]
            return job

    def _step(self, runs: Sequence[Run]) -> None:
        """Extend the running sequences: by a token, or by a part of their prompt."""
        parts = self._divide(runs)
        for (run, part), row in zip(parts.items(), self._advance(parts), strict=True):
            if isinstance(row, SlmtuneError):
                self._end(run, row)
                continue
            run.unseen = run.unseen[len(part) :]
            if not run.unseen and not run.job.cancelled.is_set():
                self._continue(run, row)

    def _advance(self, parts: Mapping[Run, tuple[int, ...]]) -> list[Tensor | SlmtuneError]:
        """The logits of each sequence. If the pass fails, each is tried once alone, so that only those at fault end."""
        try:
            return list(self._runner.advance([Extension(run.slot, part) for run, part in parts.items()]).cpu())
        except Exception as error:
            failure = failure_of(error, TOO_LARGE)
        if len(parts) == 1:
            return [failure]
        return [row for run, part in parts.items() for row in self._advance({run: part})]

    def _divide(self, runs: Sequence[Run]) -> dict[Run, tuple[int, ...]]:
        """The tokens of the next step for each sequence; some prompts may have to wait for their turn."""
        sizes = {run: 1 for run in runs if len(run.unseen) == 1}
        prompts = [run for run in runs if run not in sizes]
        left = self._runner.chunk
        if prompts:
            sizes[prompts[0]] = min(len(prompts[0].unseen), max(1, left // OLDEST))
            left -= sizes[prompts[0]]
        for run in sorted(prompts, key=lambda run: len(run.unseen)):
            more = min(left, len(run.unseen) - sizes.get(run, 0))
            if more:
                sizes[run] = sizes.get(run, 0) + more
                left -= more
        return {run: run.unseen[: sizes[run]] for run in runs if run in sizes}

    def _continue(self, run: Run, logits: Tensor) -> None:
        """Choose the next token of a sequence."""
        try:
            choice = run.sampler.choose(logits)
            reason = run.answer.push(choice)
            if reason is None:
                run.unseen = (choice.token,)
            else:
                self._end(run, run.answer.finish(reason))
        except Exception as error:
            self._end(run, failure_of(error, TOO_LARGE))

    def _end(self, run: Run, outcome: Any) -> None:
        with self._changed:
            self._running.remove(run)
        self._runner.close(run.slot)
        run.job.report(replace(outcome, cached_tokens=run.cached) if isinstance(outcome, Result) else outcome)
