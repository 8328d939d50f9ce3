"""A bounded queue of jobs and the one thread that works on them; who inherits from it says how."""

from __future__ import annotations

import logging
import threading
import traceback
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch

from finetune.errors import EngineStoppedError, QueueFullError, SlmtuneError
from finetune.serve.engine.job import Job

J = TypeVar("J", bound=Job[Any])

QUEUE_SIZE = 32  # requests waiting behind the running ones
JOIN_SECONDS = 5.0  # how long closing waits for the step being computed

log = logging.getLogger(__name__)


class JobQueue(ABC, Generic[J]):
    """Takes jobs up to `capacity`, those in progress included.

    The thread starts at the end of `__init__`: what it needs must be there before.
    """

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._waiting: deque[J] = deque()
        self._changed = threading.Condition()
        self._closed = False
        self._thread = threading.Thread(target=self._live, name=f"slmtune-{type(self).__name__.lower()}", daemon=True)
        self._thread.start()

    @abstractmethod
    def _work(self) -> None:
        """Work on jobs until the queue is closed."""

    @abstractmethod
    def _in_progress(self) -> list[J]:
        """The jobs that were taken from the queue and have not ended."""

    @property
    def alive(self) -> bool:
        """Whether jobs are run: the queue is not closed and its thread is running."""
        return self._thread.is_alive() and not self._closed

    @property
    def waiting(self) -> int:
        """The number of jobs in the queue."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """The number of jobs in progress."""
        return len(self._in_progress())

    def submit(self, job: J) -> None:
        """Queue a job.

        Raises:
            QueueFullError: the queue of waiting jobs is full.
            EngineStoppedError: the queue was closed, or its thread died.
        """
        with self._changed:
            if not self.alive:
                raise stop_error()
            if len(self._waiting) + self.running >= self._capacity:
                raise QueueFullError(len(self._waiting))
            self._waiting.append(job)
            self._changed.notify()

    def drop(self, job: J) -> None:
        """Remove a cancelled job if it is still waiting; one in progress ends before its next step."""
        with self._changed:
            if job not in self._waiting:
                return
            self._waiting.remove(job)
        job.report(job.when_cancelled)

    def close(self) -> None:
        """Refuse new jobs and end all others with an `EngineStoppedError`. Can be called repeatedly."""
        with self._changed:
            self._closed = True
            jobs = [*self._in_progress(), *self._waiting]
            self._waiting.clear()
            self._changed.notify()
        for job in jobs:
            job.cancelled.set()
            job.report(stop_error())  # immediately: the step being computed may take a while

    def join(self) -> None:
        """Wait a few seconds at most for the thread of a closed queue to end."""
        self._thread.join(JOIN_SECONDS)

    def _live(self) -> None:
        with _logging_death():
            try:
                self._work()
            finally:
                self.close()


def failure_of(error: Exception, too_large: str) -> SlmtuneError:
    """What the caller of a job learns about its failure. Raises errors after which the device cannot be used."""
    if isinstance(error, SlmtuneError):
        return error
    if isinstance(error, torch.OutOfMemoryError):
        return SlmtuneError(f"There is not enough memory for this request. {too_large}")
    if isinstance(error, torch.AcceleratorError):
        raise error  # let the thread die, which /health reports
    log.error("A request failed: %s.", type(error).__name__)  # its message could contain the prompt
    log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
    return SlmtuneError(f"The request failed ({type(error).__name__})")


def stop_error() -> EngineStoppedError:
    """The error of jobs that end with their queue."""
    return EngineStoppedError("The server is shutting down or its worker died. Send the request again later")


@contextmanager
def _logging_death() -> Iterator[None]:
    """Log what ends the thread of an engine, without the message of the error, which could contain a prompt."""
    try:
        yield
    except BaseException as error:
        log.critical("The engine has died: %s.", type(error).__name__)
        log.debug("%s", "".join(traceback.format_tb(error.__traceback__)))
