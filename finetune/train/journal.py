"""The record of a run: one line in `training.jsonl` per logged step, progress reports, counts and clocks."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from finetune.errors import TrainingDivergedError
from finetune.train.progress import FIGURES, SCORES, Counts, Step


class Journal:
    """Writes `training.jsonl`, reports progress and stops a run whose loss is not finite.

    Args:
        on_step: called after each optimizer step.
        on_line: each is called with each line of the file.
    """

    def __init__(
        self, file: Path, on_step: Callable[[Step], None] | None, on_line: Sequence[Callable[[dict[str, float]], None]]
    ) -> None:
        self.file, self.on_step, self.on_line = file, on_step, on_line
        self.counts = Counts()
        self.loss = math.nan
        self.figures: dict[str, float] = {}  # beside the loss
        self.evaluating = 0.0  # seconds
        self.start()

    def start(self, seconds_before: float = 0.0) -> None:
        """Start the clocks, as if `seconds_before` seconds ago."""
        self.seconds_before = seconds_before
        self._before_evaluation = time.monotonic()
        self._started = self._before_evaluation - seconds_before

    @property
    def elapsed(self) -> float:
        """Duration of the run in seconds, including evaluations."""
        return time.monotonic() - self._started

    @property
    def training_seconds(self) -> float:
        """Duration of the run in seconds, without evaluations."""
        return self.elapsed - self.evaluating

    def end_step(self, state: Any) -> None:
        """Report progress to the caller; an evaluation may follow."""
        if self.on_step is not None:
            elapsed = self.training_seconds
            self.on_step(
                Step(
                    step=state.global_step,
                    steps=state.max_steps,
                    epoch=float(state.epoch or 0),
                    loss=self.loss,
                    tokens_per_second=self.counts.tokens / elapsed,
                    remaining=elapsed / state.global_step * (state.max_steps - state.global_step),
                    figures=self.figures,
                )
            )
        self._before_evaluation = time.monotonic()

    def end_evaluation(self) -> None:
        """Exclude the time since the last step from the rate."""
        self.evaluating += time.monotonic() - self._before_evaluation

    def write(self, state: Any, logs: dict[str, Any]) -> None:
        """Append one line; numbers only.

        Raises:
            TrainingDivergedError: a loss or the gradient norm is not finite.
        """
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in logs and not math.isfinite(float(logs[name])):
                raise TrainingDivergedError(
                    f"Training diverged at step {state.global_step}: {name} is {logs[name]}. No adapter was written. Lower "
                    "--learning-rate (a tenth is a good next try) or raise --warmup-ratio"
                )
        if "loss" in logs:
            self.loss = float(logs["loss"])
            self.figures = {name: float(logs[name]) for name in FIGURES if name in logs}
        if "loss" not in logs and "eval_loss" not in logs:
            return  # the Trainer's final summary, which is in the manifest
        figures = (*FIGURES, *(f"eval_{name}" for name in (*FIGURES, *SCORES)))
        names = ("loss", "eval_loss", "grad_norm", "learning_rate", *figures)
        line = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4)}
        line |= {name: float(logs[name]) for name in names if name in logs}
        line |= {"tokens": self.counts.tokens, "seconds": round(self.elapsed, 3)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")
        for receive in self.on_line:
            receive(line)
