"""The worker behind a server: one thread that runs jobs in the order of arrival, behind a bounded queue."""

from __future__ import annotations

import logging
import threading
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from finetune.errors import EngineStoppedError, QueueFullError, SlmtuneError
from finetune.serve.engine.job import Job

J = TypeVar("J", bound=Job[Any])

QUEUE_SIZE = 32  # requests waiting behind the running one
JOIN_SECONDS = 5.0  # how long closing waits for the step being computed

log = logging.getLogger(__name__)


class Worker(Generic[J]):
    """Runs jobs with `run`, which returns the result of a job; `too_large` says what to change if memory is full."""

    def __init__(self, run: Callable[[J], Any], queue_size: int, too_large: str) -> None:
        self._run_job, self._queue_size, self._too_large = run, queue_size, too_large
        self._waiting: deque[J] = deque()
        self._running: J | None = None
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._work, name="slmtune-worker", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether jobs are run: the worker is not closed and its thread is running."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs that are being run: at most one."""
        return int(self._running is not None)

    def submit(self, job: J) -> None:
        """Queue a job.

        Raises:
            QueueFullError: the queue of waiting jobs is full.
            EngineStoppedError: the worker was closed, or its thread died.
        """
        with self._changed:
            if not self.alive:
                raise stop_error()
            if len(self._waiting) + (self._running is not None) > self._queue_size:
                raise QueueFullError(len(self._waiting))
            self._waiting.append(job)
            self._changed.notify()

    def drop(self, job: J) -> None:
        """Remove a cancelled job from the queue if it is still waiting."""
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        job.report(job.when_cancelled)

    def close(self) -> None:
        """Refuse new jobs and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        with self._changed:
            self._closed = True
            jobs = [job for job in (self._running, *self._waiting) if job is not None]
            self._waiting.clear()
            self._changed.notify()
        for job in jobs:
            job.cancelled.set()
            job.report(stop_error())  # immediately: the step being computed may take a while

    def join(self) -> None:
        """Wait a few seconds at most for the thread of a closed worker to end."""
        self._thread.join(JOIN_SECONDS)

    def _work(self) -> None:
        with logging_death():
            try:
                while (job := self._next()) is not None:
                    self._run(job)
            finally:
                self.close()

    def _next(self) -> J | None:
        with self._changed:
            self._running = None
            self._changed.wait_for(lambda: self._waiting or self._closed)
            if self._closed:
                return None
            self._running = self._waiting.popleft()
            return self._running

    def _run(self, job: J) -> None:
        """Run a job, and report any outcome: a caller must never wait for an answer that cannot come."""
        outcome: Any = stop_error()
        try:
            outcome = job.when_cancelled if job.cancelled.is_set() else self._run_job(job)
        except Exception as error:
            outcome = failure_of(error, self._too_large)
        finally:
            job.report(outcome)


def failure_of(error: Exception, too_large: str) -> SlmtuneError:
    """What the caller of a job learns about its failure. Raises errors after which the device cannot be used."""
    if isinstance(error, SlmtuneError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return SlmtuneError(f"There is not enough memory for this request. {too_large}")
    if isinstance(error, torch.AcceleratorError):
        raise error  # let the worker die, which /health reports
    log.error("A request failed: %s.", type(error).__name__)  # its message could contain the prompt
    log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
    return SlmtuneError(f"The request failed ({type(error).__name__})")


@contextmanager
def logging_death() -> Iterator[None]:
    """Log what ends the thread of an engine, without the message of the error, which could contain a prompt."""
    try:
        yield
    except BaseException as error:
        log.critical("The engine has died: %s.", type(error).__name__)
        log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))


def stop_error() -> EngineStoppedError:
    """The error of jobs that end with their worker."""
    return EngineStoppedError("The server is shutting down or its worker died. Send the request again later")
