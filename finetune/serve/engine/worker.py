"""The worker of a classifier: one thread that runs jobs in the order of arrival."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from finetune.serve.engine.job_queue import J, JobQueue, failure_of, stop_error


class Worker(JobQueue[J]):
    """Runs jobs with `run`, which returns the result of a job; `too_large` says what to change if memory is full."""

    def __init__(self, run: Callable[[J], Any], queue_size: int, too_large: str) -> None:
        self._run_job, self._too_large = run, too_large
        self._current: J | None = None
        super().__init__(capacity=1 + queue_size)

    def _in_progress(self) -> list[J]:
        return [] if self._current is None else [self._current]

    def _work(self) -> None:
        while (job := self._next()) is not None:
            self._run(job)

    def _next(self) -> J | None:
        with self._changed:
            self._current = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._current = self._waiting.popleft()
            return self._current

    def _run(self, job: J) -> None:
        """Run a job, and report any outcome: a caller must never wait for an answer that cannot come."""
        outcome: Any = stop_error()
        try:
            outcome = job.when_cancelled if job.cancelled.is_set() else self._run_job(job)
        except Exception as error:
            outcome = failure_of(error, self._too_large)
        finally:
            job.report(outcome)
