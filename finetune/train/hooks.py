"""What happens on the Trainer's events: the journal is written, and a signal stops the run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol

from transformers import TrainerCallback

from finetune.errors import EvaluationStoppedError
from finetune.train.interrupt import Interrupt
from finetune.train.journal import Journal


class Run(Protocol):
    """What the hooks need of a trainer."""

    journal: Journal
    interrupt: Interrupt
    resumed_from: Path | None
    is_in_train: bool

    def restore_progress(self, checkpoint: Path) -> None:
        """Restore the counters, the clocks and the journal of the run so far."""

    def stop_with_checkpoint(self, *, evaluation_due: bool) -> None:
        """Stop training after this step with a checkpoint."""


class Hooks(TrainerCallback):
    """Handles the Trainer's events: writes the journal, and stops the run if a signal arrived."""

    def __init__(self, trainer: Run) -> None:
        self.trainer, self.journal, self.interrupt = trainer, trainer.journal, trainer.interrupt

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the journal, or restore it: the Trainer has just reset its counters to zero."""
        if self.trainer.resumed_from is None:
            self.journal.start()
        else:
            self.trainer.restore_progress(self.trainer.resumed_from)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Report the step; stop after it if a signal arrived."""
        self.journal.end_step(state)
        if state.global_step >= state.max_steps:
            control.should_evaluate, control.should_save = False, True  # the last evaluation follows: evaluate_at_end
        if self.interrupt.agree() is not None:
            self.trainer.stop_with_checkpoint(evaluation_due=control.should_evaluate)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write a line of the journal."""
        self.journal.write(state, kwargs["logs"])
        state.log_history.clear()  # the journal has it, and each checkpoint would repeat it

    def on_prediction_step(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop an evaluation if a signal arrived."""
        if self.interrupt.number is not None:
            raise EvaluationStoppedError

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Exclude the evaluation from the rate."""
        if self.trainer.is_in_train:
            self.journal.end_evaluation()

    def on_save(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop after the checkpoint if a signal arrived."""
        if self.interrupt.agree() is not None:
            control.should_training_stop = True
