"""Starts the other processes of a training on this machine, and says why one of them ended if the training could not go on."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

from finetune.errors import LostProcessError, SlmtuneError, StoppedError, where_raised
from finetune.launcher import take_place
from finetune.train.ranks.group import Ranks, join, leave
from finetune.train.ranks.machine import limited_threads, own_gpu
from finetune.train.request import TrainRequest
from finetune.workers import LINGER, call_silently, describe_end, end_with_parent, threads_of

# Spawned, not forked: the libraries have threads, whose locks a fork would leave held, and a GPU does not survive it.
processes: Any = multiprocessing.get_context("spawn")

LOCAL = "127.0.0.1"
START_SECONDS = 600.0  # for a process to import the libraries: on a slow network drive

Follow = Callable[[TrainRequest, Ranks], object]


@dataclass(frozen=True)
class _Helper:
    """Another process; through `pipe` it says None when it is ready, and the error that ends it."""

    rank: int
    process: BaseProcess
    pipe: Connection

    def listen(self, seconds: float) -> SlmtuneError | None:
        """The reason why it has ended; None if it is ready, runs, or has done its work."""
        wait([self.pipe, self.process.sentinel], seconds)
        if self.pipe.poll():
            with suppress(EOFError):
                reason: SlmtuneError | None = self.pipe.recv()
                return reason
        self.process.join(0)
        code = self.process.exitcode
        if not code:
            return None
        who = f"Process {self.rank} of the training (process id {self.process.pid})"
        return LostProcessError(f"{who} {describe_end(code)}")


@contextmanager
def launched(request: TrainRequest) -> Iterator[Ranks | None]:
    """The processes that a launcher has started; None if none has."""
    place = take_place(request.num_processes)
    if place is None:
        yield None
        return
    with place.announced():
        ranks = join(None, place.rank, place.size)
    yield ranks
    leave()


@contextmanager
def started(request: TrainRequest, follow: Follow, ranks: Ranks | None = None) -> Iterator[Ranks]:
    """The processes of a training, of which this is the first; each of the others calls `follow`.

    They end with the block, and with this process, however it ends. If there are `ranks` already, none is started.

    Raises:
        SlmtuneError: another process has raised it, so that the training could not go on.
        LostProcessError: another process has ended without saying why.
    """
    size = request.num_processes or 1
    if ranks is not None or size == 1:
        yield ranks or Ranks()
        return
    from torch import distributed

    store = distributed.TCPStore(LOCAL, 0, is_master=True, wait_for_workers=False)
    helpers = [_start(request, follow, rank, size, store.port) for rank in range(1, size)]
    try:
        for helper in helpers:
            if error := helper.listen(START_SECONDS):
                raise error
        with limited_threads(threads_of(size)):
            yield join(store, 0, size)
            leave()
    except LostProcessError as error:
        raise _reason(helpers) or error from None
    finally:
        for helper in helpers:
            helper.process.kill()
            helper.process.join()


def _reason(helpers: Sequence[_Helper]) -> SlmtuneError | None:
    """What the first helper that has ended says, or how it ended."""
    deadline = time.monotonic() + LINGER
    while time.monotonic() < deadline:
        for helper in helpers:
            if error := helper.listen(LINGER / 100):
                return error
    return None


def _start(request: TrainRequest, follow: Follow, rank: int, size: int, port: int) -> _Helper:
    """Start a process with its share of the cores and a GPU of its own, out of reach of the terminal's Ctrl-C."""
    pipe, far_end = processes.Pipe(duplex=False)
    work = pickle.dumps(partial(_follow, request, follow, rank, size, port))
    process = processes.Process(target=call_silently, args=(work, far_end), daemon=True)
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with own_gpu(rank, size):
            process.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    far_end.close()
    return _Helper(rank, process, pipe)


def _follow(request: TrainRequest, follow: Follow, rank: int, size: int, port: int, pipe: Connection) -> None:
    """The life of a process that is not the first. It prints nothing: the first one reports."""
    from torch import distributed

    os.setsid()
    end_with_parent()
    try:
        pipe.send(None)
        with limited_threads(threads_of(size)):
            follow(request, join(distributed.TCPStore(LOCAL, port, is_master=False), rank, size))
            leave()
    except (LostProcessError, StoppedError):
        return  # the first process knows
    except SlmtuneError as error:
        pipe.send(error)
    except Exception as error:
        pipe.send(SlmtuneError(f"Process {rank} of the training failed: unexpected {where_raised(error)}"))
