"""SIGINT and SIGTERM while training: the first ends the run after its step with a checkpoint, the second at once."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from finetune.train.trainer import DurableTrainer

log = logging.getLogger(__name__)

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Remembers the signal that asks for an orderly end."""

    def __init__(self) -> None:
        self.number: int | None = None

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals while the block runs; those that the process ignores stay ignored.

        Only a process's main thread can take signals; elsewhere this does nothing.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.getsignal(number) for number in SIGNALS}
        taken = [number for number in SIGNALS if before[number] is not signal.SIG_IGN]

        def note(number: int, frame: FrameType | None) -> None:
            if self.number is None:
                self.number = number
                with suppress(RuntimeError):  # the signal came while a line was being written to stderr
                    log.warning("Stopping after this step, with a checkpoint. Once more stops at once.")
            else:
                for one in taken:
                    signal.signal(one, before[one])
                signal.raise_signal(number)

        for number in taken:
            signal.signal(number, note)
        try:
            yield
        finally:
            for number in taken:
                signal.signal(number, before[number])

    def callback(self, trainer: DurableTrainer) -> Any:
        """The Trainer's hooks that end the run where a signal asked for it; an evaluation is put off, not waited for."""
        from transformers import TrainerCallback

        interrupt = self

        class InterruptCallback(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if interrupt.number is not None:
                    trainer.stop_with_checkpoint(evaluation_due=control.should_evaluate)

            def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if interrupt.number is not None and trainer.is_in_train:
                    raise EvaluationStoppedError

            def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if interrupt.number is not None:
                    control.should_training_stop = True

        return InterruptCallback()


class EvaluationStoppedError(Exception):
    """A signal came during an evaluation between two steps."""
