"""What a run tells while it goes: a line of `training.jsonl` a logged step, progress, and its clocks."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import TrainingDivergedError

if TYPE_CHECKING:
    from finetune.train.fast.loss import SupervisedTrainer
    from finetune.train.request import Step


class Journal:
    """Writes `training.jsonl`, reports progress, and stops a run whose held-out loss is not finite."""

    def __init__(self, file: Path, trainer: SupervisedTrainer, on_step: Callable[[Step], None] | None) -> None:
        self.file, self.trainer, self.on_step = file, trainer, on_step
        self.started = time.monotonic()  # moved back by what a run took before it was resumed
        self.evaluating = 0.0  # seconds
        self.loss = math.nan
        self._before_evaluation = 0.0

    @property
    def elapsed(self) -> float:
        """Seconds of the run, evaluations included."""
        return time.monotonic() - self.started

    def callback(self) -> Any:
        """The Trainer's hooks into this journal."""
        from transformers import TrainerCallback

        journal = self

        class JournalCallback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.started = journal._before_evaluation = time.monotonic()

            def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.write(state, kwargs["logs"])

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.report(state)
                journal._before_evaluation = time.monotonic()

            def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if journal.trainer.is_in_train:
                    journal.evaluating += time.monotonic() - journal._before_evaluation

        return JournalCallback()

    def write(self, state: Any, logs: dict[str, Any]) -> None:
        """Append one line; numbers only."""
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in logs and not math.isfinite(float(logs[name])):
                raise TrainingDivergedError(
                    f"Training diverged at step {state.global_step}: {name} is {logs[name]}. No adapter was written. Lower "
                    "--learning-rate (a tenth is a good next try) or raise the warm-up"
                )
        if "loss" in logs:
            self.loss = float(logs["loss"])
        names = ("loss", "eval_loss", "grad_norm", "learning_rate")
        line = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4)}
        line |= {name: float(logs[name]) for name in names if name in logs}
        if "loss" not in logs and "eval_loss" not in logs:
            return  # the Trainer's summary at the end, which the manifest has
        line |= {"tokens": self.trainer.tokens, "seconds": round(self.elapsed, 3)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def report(self, state: Any) -> None:
        """Tell the caller how far training is."""
        if self.on_step is None:
            return
        from finetune.train.request import Step

        elapsed = self.elapsed - self.evaluating
        remaining = elapsed / state.global_step * (state.max_steps - state.global_step)
        rate = self.trainer.tokens / elapsed
        self.on_step(Step(state.global_step, state.max_steps, float(state.epoch or 0), self.loss, rate, remaining))
