"""A trainer that can be killed: checkpoints that hold everything, an exact way back, and no step on broken numbers."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from finetune.errors import TrainingDivergedError
from finetune.train.checkpoints.checkpoint import JOURNAL, PROGRESS, STATE, WEIGHTS, Checkpoints
from finetune.train.checkpoints.disk import make_room, told_when_full
from finetune.train.fast.loss import SupervisedTrainer
from finetune.train.interrupt import EvaluationStoppedError
from finetune.train.journal import Journal

log = logging.getLogger(__name__)

NAMED_ROWS = 8  # that an error lists


@dataclass(frozen=True)
class Progress:
    """What the Trainer itself would count anew after a restart; losses as it sums them, times in seconds."""

    tokens: int
    computed_tokens: int
    supervised_tokens: int
    seconds: float
    evaluating: float
    shown_loss: float | None
    loss_since_log: float
    loss_before_log: float
    last_logged: int
    evaluation_due: bool


class DurableTrainer(SupervisedTrainer):
    """SupervisedTrainer whose checkpoints are whole, complete and exact, and that names the rows of a broken step."""

    checkpoints: Checkpoints
    journal: Journal
    row_ids: Sequence[str] = ()
    seconds_before = 0.0  # of the run, until it was resumed
    evaluation_due = False  # a signal came before the evaluation of the last step was done

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """As the Trainer's; a resumed run counts on from where it was."""
        self._step_rows: list[int] = []
        self._step_losses: list[Tensor] = []
        if resume_from_checkpoint is not None:
            self.add_callback(_restoring(self, Path(str(resume_from_checkpoint))))
        return super().train(resume_from_checkpoint, *args, **kwargs)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        model: Any = self.model
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    def stop_with_checkpoint(self, *, evaluation_due: bool) -> None:
        """End training after this step, with a checkpoint; an evaluation that is due is made on return."""
        self.evaluation_due = evaluation_due
        self.control.should_evaluate = False
        self.control.should_save = self.control.should_training_stop = True

    def save_checkpoint(self) -> None:
        """Write a checkpoint of the last step."""
        step = self.state.global_step
        make_room(self.checkpoints, step, sum(parameter.numel() for parameter in self.trainable.values()))
        with told_when_full(self.checkpoints.folder):
            self.checkpoints.write(step, self._write_state)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        self.save_checkpoint()

    def _write_state(self, folder: Path) -> None:
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self.trainable.items()}
        save_file(weights, folder / WEIGHTS)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / STATE))
        (folder / JOURNAL).write_bytes(self.journal.file.read_bytes() if self.journal.file.exists() else b"")
        progress = Progress(
            tokens=self.tokens,
            computed_tokens=self.computed_tokens,
            supervised_tokens=self.supervised_tokens,
            seconds=self.journal.elapsed,
            evaluating=self.journal.evaluating,
            shown_loss=None if math.isnan(self.journal.loss) else self.journal.loss,
            loss_since_log=float(self._tr_loss),
            loss_before_log=self._total_loss_scalar,
            last_logged=self._globalstep_last_logged,
            evaluation_due=self.evaluation_due,
        )
        (folder / PROGRESS).write_text(json.dumps(asdict(progress)) + "\n", "utf-8")

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Copy the weights into the parameters: PEFT's loader would pass over what is missing."""
        stored = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        parameters = self.trainable
        if stored.keys() != parameters.keys():
            raise RuntimeError(f"{resume_from_checkpoint} has the weights of another adapter")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored[name])

    def restore(self, progress: Progress, journal: Path) -> None:
        """Take up the counters, clocks and the journal of the run so far."""
        self.tokens, self.computed_tokens = progress.tokens, progress.computed_tokens
        self.supervised_tokens = progress.supervised_tokens
        self.seconds_before = progress.seconds
        self.journal.started -= progress.seconds
        self.journal.evaluating = progress.evaluating
        self.journal.loss = math.nan if progress.shown_loss is None else progress.shown_loss
        shutil.copyfile(journal, self.journal.file)
        self._tr_loss += progress.loss_since_log
        self._total_loss_scalar = progress.loss_before_log
        self._globalstep_last_logged = progress.last_logged
        self._initial_global_step = 0  # the mean loss is that of the whole run
        self.state.compute_steps(self.args, self.state.max_steps)  # when to save, evaluate and log: as asked for now
        if progress.evaluation_due:
            self.evaluate()

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """As the Trainer's; but it would take a step too many where a run is resumed after its last one."""
        if self.state.global_step >= self.state.max_steps:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """As the Trainer's; remembers loss and rows until the optimizer step."""
        self._step_rows += inputs["rows"]
        step: Any = super().training_step
        loss: Tensor = step(model, inputs, *args, **kwargs)
        self._step_losses.append(loss)
        return loss

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip, and refuse the step whose loss or gradient is not finite: the optimizer would spread it to all weights.

        The norm is finite only if every gradient is, so nothing else has to be looked at.

        Raises:
            TrainingDivergedError: names the step and the ids of its rows.
        """
        clip: Any = super()._clip_grad_norm
        norm = clip(model)
        loss = torch.stack(self._step_losses).sum()
        rows, self._step_rows, self._step_losses = self._step_rows, [], []
        if not bool(torch.isfinite(loss) & torch.isfinite(torch.as_tensor(norm))):
            part = "loss" if not bool(torch.isfinite(loss)) else "gradient"
            raise TrainingDivergedError(
                f"Training diverged at step {self.state.global_step + 1}: its {part} is not finite{self._named(rows)}. "
                "No adapter was written. Lower --learning-rate (a tenth is a good next try), raise the warm-up, or look at "
                "what is in these rows"
            )
        return norm

    def _named(self, rows: list[int]) -> str:
        ids = [self.row_ids[row] for row in rows]
        more = f" and {len(ids) - NAMED_ROWS} more" if len(ids) > NAMED_ROWS else ""
        return f" (rows {', '.join(ids[:NAMED_ROWS])}{more})" if ids else ""

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """As the Trainer's, but without a trace in the random state: its data loader draws a number from it."""
        with torch.random.fork_rng():
            return super().evaluate(*args, **kwargs)

    def _evaluate(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super()._evaluate(*args, **kwargs)
        except EvaluationStoppedError:
            self.stop_with_checkpoint(evaluation_due=True)
            return {}


def _restoring(trainer: DurableTrainer, checkpoint: Path) -> Any:
    """The hook that restores the counters: the Trainer sets its own to zero just before it."""
    from transformers import TrainerCallback

    progress = Progress(**json.loads((checkpoint / PROGRESS).read_text("utf-8")))

    class RestoringCallback(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            trainer.restore(progress, checkpoint / JOURNAL)

    return RestoringCallback()
