"""Worker processes of one machine: each does one thing at a time, with its share of the cores or a GPU of its own."""

from __future__ import annotations

import logging
import os
import pickle
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from logging.handlers import QueueHandler
from multiprocessing import connection, get_context, parent_process
from multiprocessing.connection import Connection
from multiprocessing.forkserver import ensure_running
from multiprocessing.process import BaseProcess
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from finetune.errors import InputError, LostProcessError, SlmtuneError, where_raised
from finetune.launcher import GPUS, gpus_of
from finetune.machine import count_cores, is_out_of_memory, peak_bytes

T = TypeVar("T")
M = TypeVar("M")
R = TypeVar("R")
Work = Callable[[T, Callable[[M], None]], R]  # gets an item and a way to say something meanwhile; returns a result

# A fork of this process would leave locks of the libraries' threads held; one of a server that imported them does not.
processes: Any = get_context("forkserver")

PAUSE = 0.1  # seconds between two looks at a signal
LINGER = 10.0  # seconds for the end of a process to be seen once its connection is closed

log = logging.getLogger("finetune")


@dataclass(frozen=True)
class Said(Generic[T, M]):
    """A message of a worker about what it is doing."""

    item: T
    message: M


@dataclass(frozen=True)
class Done(Generic[T, R]):
    """What a worker has made of an item, and the peak memory so far: of all workers together, in bytes."""

    item: T
    result: R
    peak: int


@dataclass(frozen=True)
class _Worker:
    process: BaseProcess
    pipe: Connection


class Workers(Generic[T, M, R]):
    """Processes that call `work(item, say)`. They end with the block, and with this process, however that ends.

    What libraries print in them is lost; what slmtune logs in them is logged here. They are forked from a server that
    imports the main module anew: a script must use them below `if __name__ == "__main__":`.

    Args:
        count: how many there may be; each starts when it is first needed.
        work: sent to each once, so that it may keep what it has made there, such as a model.
    """

    def __init__(self, count: int, work: Work[T, M, R]) -> None:
        self.count, self._work = count, work
        self.busy: dict[int, T] = {}  # what each is doing, by its number
        self._workers: dict[int, _Worker] = {}
        self._peaks: dict[int, int] = {}
        self._is_ending = False

    def __enter__(self) -> Self:
        processes.set_forkserver_preload([type(self._work).__module__])
        # Ctrl-C in a terminal reaches all processes, and must not end the server.
        blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
        try:
            ensure_running()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        is_impatient = self._is_ending and error is not None  # such as a second signal
        self.terminate()
        for worker in self._workers.values():
            worker.pipe.close()
        try:
            for worker in self._workers.values():
                worker.process.join(0 if is_impatient else None)
        finally:
            for worker in self._workers.values():
                worker.process.kill()
                worker.process.join()

    @property
    def idle(self) -> int | None:
        """The number of a worker that has nothing to do, if there is one."""
        return next((number for number in range(self.count) if number not in self.busy), None)

    def begin(self, number: int, item: T) -> None:
        """Give a worker something to do.

        Raises:
            LostProcessError: it has ended.
        """
        if number not in self._workers:
            self._workers[number] = self._start(number)
        self.busy[number] = item
        try:
            self._workers[number].pipe.send(item)
        except OSError:
            self._lose(number)

    def listen(self) -> Iterator[Said[T, M] | Done[T, R]]:
        """What the workers have said and done since the last call; waits for it a moment.

        Raises:
            LostProcessError: a worker has ended; not after `terminate`.
            Exception: raised by `work`: that of slmtune, MemoryError, or an error that says where another one was raised.
        """
        numbers = {self._workers[number].pipe: number for number in self.busy}
        for pipe in connection.wait(list(numbers), PAUSE):
            assert isinstance(pipe, Connection)
            number = numbers[pipe]
            try:
                event = pipe.recv()
            except (EOFError, OSError):
                self._lose(number)
                continue
            if isinstance(event, Exception):
                raise event
            if isinstance(event, Done):
                del self.busy[number]
                self._peaks[number] = event.peak
                yield replace(event, peak=sum(self._peaks.values()))
            elif isinstance(event, Said):
                yield event
            elif not self._is_ending:  # then each would log the same
                logging.getLogger(event.name).handle(event)

    def terminate(self) -> None:
        """Send SIGTERM to all, once; unless `work` handles it, they end at once."""
        if not self._is_ending:
            self._is_ending = True
            for worker in self._workers.values():
                worker.process.terminate()

    def _start(self, number: int) -> _Worker:
        pipe, far_end = processes.Pipe()
        facts = (gpus_of(number, self.count), threads_of(self.count), log.getEffectiveLevel())
        process = processes.Process(target=_serve, args=(self._work, far_end, *facts))
        process.start()
        far_end.close()
        return _Worker(process, pipe)

    def _lose(self, number: int) -> None:
        del self.busy[number]
        process = self._workers[number].process
        process.join(LINGER)
        if not self._is_ending:
            raise LostProcessError(f"A worker (process id {process.pid}) {describe_end(process.exitcode)}")


class _Sender(QueueHandler):
    """Sends what a worker has to say to its parent, and what it logs; may be used by several threads."""

    def __init__(self, pipe: Connection) -> None:
        self.pipe, self.one_at_a_time = pipe, threading.Lock()
        self.records: SimpleQueue[logging.LogRecord] = SimpleQueue()
        super().__init__(self.records)

    def send(self, event: object) -> None:
        """Send an event, and before it what has been logged."""
        with self.one_at_a_time, suppress(OSError):  # the parent no longer listens
            self._send_records()
            self.pipe.send(event)

    def enqueue(self, record: logging.LogRecord) -> None:
        """Send a record, or keep it if something is being sent: perhaps by this very thread, which a signal interrupted."""
        self.records.put(record)
        if self.one_at_a_time.acquire(blocking=False):
            try:
                with suppress(OSError):
                    self._send_records()
            finally:
                self.one_at_a_time.release()

    def _send_records(self) -> None:
        while not self.records.empty():
            self.pipe.send(self.records.get())


def _serve(work: Work[Any, Any, Any], pipe: Connection, gpu: str | None, threads: int, level: int) -> None:
    """The life of a worker."""
    end_with_parent()
    silence()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the parent, which sends SIGTERM
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if gpu is not None:
        os.environ[GPUS] = gpu
    import torch  # here: `prepare` imports this module without it

    torch.set_num_threads(threads)
    sender = _Sender(pipe)
    log.setLevel(level)
    log.handlers, log.propagate = [sender], False
    with suppress(EOFError, OSError):
        while True:
            sender.send(_attempt(work, pipe.recv(), sender))


def _attempt(work: Work[Any, Any, Any], item: Any, sender: _Sender) -> Done[Any, Any] | Exception:
    try:
        return Done(item, work(item, lambda message: sender.send(Said(item, message))), peak_bytes())
    except SlmtuneError as error:
        return error
    except Exception as error:
        if is_out_of_memory(error):
            return MemoryError()
        return SlmtuneError(f"A worker failed: unexpected {where_raised(error)}")


def end_with_parent() -> None:
    """From now on, let this process end as soon as its parent does.

    A killed parent cannot stop its workers, which would wait for work, or hold a GPU, for ever.
    """

    def follow() -> None:
        if (parent := parent_process()) is not None:
            connection.wait([parent.sentinel])
            os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=follow, daemon=True).start()


def call_silently(pickled: bytes, *arguments: Any) -> None:
    """Call a function in a process that prints nothing, not even what it imports to unpickle the function."""
    silence()
    pickle.loads(pickled)(*arguments)


def silence() -> None:
    """Let this process print nothing: the parent reports, and libraries would print the same lines in each worker."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (1, 2):
        os.dup2(nowhere, stream)


def describe_end(code: int | None) -> str:
    """How a process has ended, from its exit code: minus a signal if one has killed it."""
    if code is None:
        return "does not answer"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


def threads_of(count: int) -> int:
    """The threads of each of so many processes on this machine: its share of the cores, and no more than torch has now."""
    import torch

    return max(1, min(torch.get_num_threads(), count_cores() // count))


def require_devices(flag: str, count: int, otherwise: str = "") -> None:
    """Refuse more processes on this machine than it has GPUs or, without a GPU, cores.

    Args:
        flag: with which the user asked for them.
        otherwise: what else the user can do, after a comma.

    Raises:
        InputError: says how many there may be.
    """
    import torch

    gpus = torch.cuda.device_count()
    available, kind = (gpus, "GPU") if gpus else (count_cores(), "CPU core")
    if count > available:
        raise InputError(
            f"{flag} {count} is more than this machine has: {available} {kind}{'s' * (available != 1)}. Use at most {flag} "
            f"{available}{otherwise}"
        )
