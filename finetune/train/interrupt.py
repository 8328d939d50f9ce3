"""SIGINT and SIGTERM during training: the first stops the run after its step, with a checkpoint; the second at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from finetune.train.ranks.group import Ranks

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Remembers the signal that has reached this process, on which all processes of the run agree between steps."""

    def __init__(self, ranks: Ranks) -> None:
        self.ranks = ranks
        self.number: int | None = None

    def agree(self) -> int | None:
        """The signal that stops the run, whichever of its processes it has reached; each must ask."""
        return next((number for number in self.ranks.gather(self.number) if number is not None), None)

    @contextmanager
    def listen(self) -> Iterator[None]:
        """Handle the signals during the block, except those that the process ignores.

        Only the main thread of a process can handle signals; in other threads this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        numbers = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

        def note(number: int, frame: FrameType | None) -> None:
            if self.number is None:
                self.number = number
                with suppress(RuntimeError):  # the signal arrived while a line was being written to stderr
                    log.warning("Stopping after this step, with a checkpoint. A second signal stops at once.")
            else:
                for one in numbers:
                    signal.signal(one, before[one])
                signal.raise_signal(number)

        for number in numbers:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in numbers:
                signal.signal(number, before[number])
