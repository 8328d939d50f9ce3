"""The engine of one machine: maps functions over items in several processes, with results in the order of the items."""

from __future__ import annotations

import gc
import multiprocessing
import signal
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from finetune.corpus.skip_pandas import skip_pandas
from finetune.errors import SlmtuneError
from finetune.prepare.engines.engine import BandHashes, P, R, RowNumbers, T
from finetune.workers import end_with_parent

# Rows have no reference cycles: searching for some after every 700 new objects took a sixth of a worker's time.
GARBAGE = 200_000
WAITING = 3  # items queued per worker: enough to keep it busy, few enough to save memory


@dataclass(frozen=True)
class LocalEngine:
    """Expands items in this process, and calls functions in `workers` processes; one worker is this process."""

    workers: int

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`."""
        return ordered_map(function, items, self.workers)

    def spread(self, expand: Callable[[T], Iterable[P]], function: Callable[[P], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`."""
        return ordered_map(function, (piece for item in items for piece in expand(item)), self.workers)

    def rows_that_may_be_alike(
        self, hashes: Callable[[T], BandHashes], items: Sequence[T], rows: int
    ) -> RowNumbers | None:
        """None: in one memory, comparing all rows begins with the same work."""
        return None


def ordered_map(function: Callable[[T], R], items: Iterable[T], workers: int) -> Iterator[R]:
    """Yield `function(item)` for each item; a single worker is this process.

    Processes are spawned, not forked: the libraries have threads, whose locks a fork would leave held.

    Raises:
        SlmtuneError: raised by the function, or because a worker died.
    """
    if workers == 1:
        with _rare_searches():
            yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(workers, context, initializer=_start, initargs=(function,))
    waiting: deque[Future[R]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(_run, item))
            if len(waiting) >= WAITING * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenProcessPool:
        raise SlmtuneError("A worker process died, possibly for lack of memory. Try again with --workers 1") from None
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _rare_searches() -> Iterator[None]:
    """Search for garbage as rarely in this process as in a worker."""
    usual = gc.get_threshold()
    gc.set_threshold(GARBAGE)
    try:
        yield
    finally:
        gc.set_threshold(*usual)


_function: list[Callable[[Any], Any]] = []  # of this worker process: sent once, not with every item


def _start(function: Callable[[Any], Any]) -> None:
    skip_pandas()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles Ctrl-C and stops the workers
    end_with_parent()
    gc.freeze()
    gc.set_threshold(GARBAGE)
    _function.append(function)


def _run(item: Any) -> Any:
    return _function[0](item)
