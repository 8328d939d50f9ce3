"""A trainer that survives being killed: complete checkpoints, exact resumption, and no step with non-finite values."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch
from accelerate.utils import send_to_device
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, PrinterCallback
from transformers.trainer_utils import EvalLoopOutput
from trl import SFTTrainer

from finetune.errors import EvaluationStoppedError, InputError
from finetune.machine import explain_full_disk, release_memory, return_gaps
from finetune.recipe import AdapterRecipe
from finetune.train.arguments import lora_config, trainer_arguments
from finetune.train.batches.mixture import EpochSampler, Mixture
from finetune.train.best import Best
from finetune.train.checkpoints.checkpoint import JOURNAL, OBJECTIVE, PROGRESS, STATE, WEIGHTS, Checkpoints
from finetune.train.checkpoints.disk import THEN_RESUME, checkpoint_bytes, make_room
from finetune.train.divergence import explain_divergence, require_finite
from finetune.train.hooks import Hooks
from finetune.train.interrupt import Interrupt
from finetune.train.journal import Journal
from finetune.train.noise import noisy_embeddings
from finetune.train.objectives.objective import Objective
from finetune.train.passes import ForwardPasses
from finetune.train.precision import match_precision, restore_precision
from finetune.train.progress import Counts, Evaluation, Figures, TrainProgress
from finetune.train.ranks.group import Ranks
from finetune.train.validation import Validation, choose_metric

T = TypeVar("T")


class SupervisedTrainer(SFTTrainer):
    """TRL's trainer for rows that are already rendered, with complete and exact checkpoints.

    TRL itself does not tokenise, truncate or drop any rows.

    Args:
        objective: what the run learns, from which rows.
        journal: counts tokens and writes the Trainer's log to the folder of the adapter.
        checkpoints: the checkpoints of this run.
        validation: what an evaluation measures besides the loss.
        mixture: the rows of each epoch; None: all.
        ranks: the processes of the run, each of which has such a trainer, with the same rows; None: only this one.

    Raises:
        InputError: the model has no modules that match `target_modules`.
    """

    objective: Objective

    def __init__(
        self,
        *,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        objective: Objective,
        recipe: AdapterRecipe,
        journal: Journal,
        checkpoints: Checkpoints,
        validation: Validation | None = None,
        mixture: Mixture | None = None,
        ranks: Ranks | None = None,
    ) -> None:
        self.objective, self.validation, self.mixture = objective, validation, mixture
        self.journal, self.checkpoints, self.ranks = journal, checkpoints, ranks or Ranks()
        self.interrupt = Interrupt(self.ranks)
        self.rows = objective.rows.training
        self.resumed_from: Path | None = None
        self.evaluation_due = False  # a signal arrived before the evaluation of the last step
        self.recipe, self.passes = recipe, ForwardPasses(recipe, checkpoints.record_batch)
        self._losses: list[tuple[list[int], Tensor]] = []  # of the step's forward passes, with their rows
        self._figures = Figures()  # of the objective, since the last logged step
        self._held_out: dict[str, float] = {}  # the loss and the figures of the last evaluation
        training, evaluation = objective.rows.datasets()
        self.evaluates = evaluation is not None and recipe.eval_steps != 0
        metric = choose_metric(recipe, validation.head if validation else None, validation)
        self.best = Best(metric, recipe.patience, self.evaluates and recipe.load_best_model_at_end)
        try:
            super().__init__(
                model=model,
                args=trainer_arguments(recipe, journal.file.parent, recipe.eval_steps if evaluation else None),
                data_collator=lambda items: {"rows": [item["number"] for item in items]},
                train_dataset=training,
                eval_dataset=evaluation,
                processing_class=tokenizer,
                peft_config=lora_config(recipe, model, objective.task_type),
            )
        except ValueError as error:
            if "target" not in str(error).lower():
                raise
            raise InputError(f"--target-modules: {str(error).splitlines()[0]}") from None
        self.remove_callback(PrinterCallback)
        self.add_callback(Hooks(self))
        restore_precision(self.trainable)
        match_precision(self.model)
        objective.begin(self.model)

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train like the Trainer, but let a resumed run continue its counters."""
        self.resumed_from = Path(str(resume_from_checkpoint)) if resume_from_checkpoint else None
        return super().train(resume_from_checkpoint, *args, **kwargs)

    @property
    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, by name."""
        model: Any = self.model
        return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}

    @property
    def trainable_weights(self) -> int:
        """The number of weights that training changes."""
        return sum(parameter.numel() for parameter in self.trainable.values())

    @property
    def checkpoint_bytes(self) -> int:
        """Upper bound for the size of each checkpoint of the run."""
        steps = self.recipe.count_steps(len(self.mixture or self.rows))
        lines = steps // self.recipe.logging_steps + steps // (self.recipe.eval_steps or steps)
        lines += 2  # the first step and the last evaluation
        return checkpoint_bytes(self.trainable_weights, lines, with_best=self.best.keeps_weights)

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        if self.mixture is None:
            return super()._get_train_sampler(train_dataset)
        return EpochSampler(self.mixture, lambda: int(self.state.epoch or 0))

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """Like the Trainer's, without the extra step that it takes when a run is resumed after its last step."""
        if self.state.global_step >= self.state.max_steps or self.best.is_final:
            return [], None
        return super().get_batch_samples(epoch_iterator, num_batches, device)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Pass the rows of an optimizer step through the model and back, in as many forward passes as memory needs.

        Like the Trainer's, but count tokens, and remember the rows and the loss of each pass until the optimizer step. Each
        process passes its share of the rows; the loss of each row is divided by the terms of all of them, so the sum of the
        gradients is that of one process.
        """
        step: Any = super().training_step
        rows = self.objective.arrange(inputs["rows"])
        terms = self.objective.count_terms(rows)
        self._draw_other_noise()

        def compute(passes: list[list[int]]) -> tuple[Counts, list[tuple[list[int], Tensor]], Figures]:
            model.zero_grad()
            self.objective.take_figures()  # those of passes for which memory was too small
            batches = [self._collate(rows) for rows in passes]
            counts = sum((batch["counts"] for batch in batches), Counts())
            return counts, [(batch["rows"], pass_through(batch)) for batch in batches], self.objective.take_figures()

        def pass_through(batch: dict[str, Any]) -> Tensor:
            self._close_gaps()
            loss: Tensor = step(model, batch, terms)
            return loss

        parts = self.ranks.gather(self.passes.run(compute, self.ranks.share(rows)))
        self.ranks.sum_gradients(self.trainable.values())
        self._losses = [loss for _, losses, _ in parts for loss in losses]
        for counts, _, figures in parts:
            self.journal.counts += counts
            self._figures += figures
        return torch.stack([loss for _, loss in self._losses]).sum()

    def _close_gaps(self) -> None:
        """If memory is scarce, return what earlier passes have left: rows of another length do not fit into it."""
        if self.recipe.gradient_checkpointing:
            return_gaps()

    def _draw_other_noise(self) -> None:
        """Let dropout and noise differ between the processes; a function of the step, so that resuming repeats it."""
        if not self.ranks.is_first and self.recipe.is_noisy:
            torch.manual_seed(hash((self.recipe.seed, self.state.global_step, self.ranks.rank)))

    def _collate(self, rows: list[int]) -> dict[str, Any]:
        # Not left to the Trainer, which moves tensors only: the layout of packed rows would stay behind.
        batch: dict[str, Any] = send_to_device(
            self.objective.collate([{"number": row} for row in rows]), self.args.device
        )
        return batch

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """The loss of a forward pass, in nats per supervised token or pair of answers of the whole optimizer step."""
        assert not return_outputs  # evaluation_loop does not ask for them
        assert num_items_in_batch is not None  # from training_step
        adapted = self.accelerator.unwrap_model(model)
        with noisy_embeddings(adapted, inputs, self.recipe.neftune_noise_alpha):
            return self.objective.loss(adapted, inputs) / max(int(num_items_in_batch), 1)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Like the Trainer's, with the figures of the objective since the last line of the training."""
        if "loss" in logs:
            logs |= self._figures.means
            self._figures = Figures()
        super().log(logs, *args, **kwargs)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """None: the Trainer would count them from batches in a form that it knows."""
        return 0

    def _clip_grad_norm(self, model: nn.Module) -> Any:
        """Clip, and refuse a step whose loss or gradient is not finite: the optimizer would spread it to all weights.

        The norm is finite only if every gradient is, so checking the norm is enough.

        Raises:
            TrainingDivergedError: names the step and the ids of its rows.
        """
        clip: Any = super()._clip_grad_norm
        norm = torch.as_tensor(clip(model))
        loss = torch.stack([loss for _, loss in self._losses]).sum()
        if not bool(torch.isfinite(loss) & torch.isfinite(norm)):
            raise explain_divergence(self.state.global_step + 1, self._losses, self.rows.ids)
        return norm

    def evaluate_at_end(self) -> None:
        """Evaluate the last step, unless that has happened, and give the model the weights that the adapter will have.

        Raises:
            EvaluationStoppedError: a signal arrived during the evaluation.
        """
        if not self.evaluates or self.interrupt.agree() is not None:
            return
        newest = self.best.evaluations.newest
        if newest is None or newest.step != self.state.global_step:
            self.evaluate()
        self.best.apply(self.trainable)

    def forget_optimizer(self) -> None:
        """Free the moments of the optimizer: after the last step, they are twice as large as the adapter."""
        optimizer: Any = self.optimizer
        optimizer.state.clear()
        release_memory()

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Like the Trainer's, but leave the CPU's random state unchanged: its data loader draws a number from it."""
        release_memory()  # the batches have other sizes, and training has left gaps between its tensors
        with torch.random.fork_rng(devices=[]):
            figures: dict[str, float] = super().evaluate(*args, **kwargs)
        self.best.add(Evaluation(self.state.global_step, self._held_out), self.trainable)
        return figures

    def _evaluate(self, *args: Any, **kwargs: Any) -> Any:
        try:
            figures = super()._evaluate(*args, **kwargs)
        except EvaluationStoppedError:
            self.stop_with_checkpoint(evaluation_due=True)
            return {}
        if self.best.is_final:
            self.stop_with_checkpoint(evaluation_due=False)
        return figures

    def evaluation_loop(self, dataloader: Any, *args: Any, metric_key_prefix: str = "eval", **kwargs: Any) -> Any:
        """Mean loss over all rows, the means of other figures, and the scores of the validation.

        Each supervised token or pair has the same weight; the Trainer averages the means of batches, which depends on the
        batch size.
        """
        adapted: Any = self.model
        adapted.eval()
        batches: list[list[int]] = [batch["rows"] for batch in dataloader]
        self._held_out = sum(self._over_batches(self._measure, batches), Figures()).means | self._score_answers()
        nothing: Any = None  # keep neither logits nor labels
        metrics = {f"{metric_key_prefix}_{name}": value for name, value in self._held_out.items()}
        return EvalLoopOutput(nothing, nothing, metrics, sum(map(len, batches)))

    def _score_answers(self) -> dict[str, float]:
        """The scores of the model's answers to the rows of the validation."""
        if self.validation is None:
            return {}
        validation, size = self.validation, self.args.per_device_eval_batch_size
        rows = list(range(len(validation)))
        batches = [rows[start : start + size] for start in rows[::size]]
        answers = self._over_batches(
            lambda passes: [a for each in passes for a in validation.answer(self.model, each)], batches
        )
        return validation.score([answer for batch in answers for answer in batch])

    def _over_batches(self, compute: Callable[[list[list[int]]], T], batches: list[list[int]]) -> list[T]:
        """What `compute` gives for each batch, of which each process takes its share.

        Raises:
            EvaluationStoppedError: a signal has arrived in this process or another one.
        """
        ours: dict[int, T] = {}
        stopped = False
        try:
            for number in self.ranks.share(list(range(len(batches)))):
                ours[number] = self.passes.run(compute, batches[number])
                self.control = self.callback_handler.on_prediction_step(self.args, self.state, self.control)
        except EvaluationStoppedError:
            stopped = True
        parts = self.ranks.gather((ours, stopped))
        if any(stopped for _, stopped in parts):
            raise EvaluationStoppedError
        results = {number: result for part, _ in parts for number, result in part.items()}
        return [results[number] for number in range(len(batches))]

    def _measure(self, passes: list[list[int]]) -> Figures:
        """The summed loss and figures of rows."""
        self.objective.take_figures()  # those of passes for which memory was too small
        terms, loss = 0, 0.0
        for rows in passes:
            inputs: dict[str, Any] = self._collate(rows)
            self._close_gaps()
            with torch.no_grad(), self.compute_loss_context_manager():
                loss += float(self.objective.loss(self.model, inputs))
            terms += inputs["counts"].terms
        return Figures(terms, {"loss": loss, **self.objective.take_figures().sums})

    def stop_with_checkpoint(self, *, evaluation_due: bool) -> None:
        """Stop training after this step with a checkpoint; a resumed run makes up for an evaluation that is due."""
        self.evaluation_due = evaluation_due
        self.control.should_evaluate = False
        self.control.should_save = self.control.should_training_stop = True

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        """Write a checkpoint of the last step.

        Raises:
            TrainingDivergedError: a weight is not finite; no run must resume from it.
        """
        step = self.state.global_step
        require_finite(step, self.trainable)
        self.objective.merge(self.ranks.gather(self.objective.state()))
        if not self.ranks.is_first:
            return
        make_room(self.checkpoints, step, self.checkpoint_bytes)
        with explain_full_disk(self.checkpoints.folder, THEN_RESUME):
            self.checkpoints.write(step, self._write_state)

    def _write_state(self, folder: Path) -> None:
        weights = {name: parameter.detach().cpu().contiguous() for name, parameter in self.trainable.items()}
        save_file(weights, folder / WEIGHTS)
        if state := self.objective.state():
            save_file(state, folder / OBJECTIVE)
        self._save_optimizer_and_scheduler(str(folder))
        self._save_rng_state(str(folder))
        self.state.save_to_json(str(folder / STATE))
        journal = self.journal
        self.best.write(folder, self.state.global_step)
        (folder / JOURNAL).write_bytes(journal.file.read_bytes() if journal.file.exists() else b"")
        TrainProgress(
            counts=journal.counts,
            seconds=journal.elapsed,
            evaluating=journal.evaluating,
            shown_loss=None if math.isnan(journal.loss) else journal.loss,
            loss_since_log=float(self._tr_loss),
            loss_before_log=self._total_loss_scalar,
            last_logged=self._globalstep_last_logged,
            evaluation_due=self.evaluation_due,
            figures=self._figures,
            evaluations=self.best.evaluations,
        ).write(folder / PROGRESS)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        """Copy the weights into the parameters: PEFT's loader would ignore missing ones."""
        stored = load_file(Path(resume_from_checkpoint) / WEIGHTS)
        parameters = self.trainable
        if stored.keys() != parameters.keys():
            raise RuntimeError(f"{resume_from_checkpoint} has the weights of another adapter")
        with torch.no_grad():
            for name, parameter in parameters.items():
                parameter.copy_(stored[name])
        if (state := Path(resume_from_checkpoint) / OBJECTIVE).is_file():
            self.objective.restore(load_file(state))

    def restore_progress(self, checkpoint: Path) -> None:
        """Restore the counters, the clocks and the journal of the run so far."""
        progress, journal = TrainProgress.read(checkpoint / PROGRESS), self.journal
        journal.start(progress.seconds)
        journal.counts, journal.evaluating = progress.counts, progress.evaluating
        journal.loss = math.nan if progress.shown_loss is None else progress.shown_loss
        shutil.copyfile(checkpoint / JOURNAL, journal.file)
        self._tr_loss += progress.loss_since_log
        self._total_loss_scalar = progress.loss_before_log
        self._globalstep_last_logged = progress.last_logged
        self._figures = progress.figures
        self._initial_global_step = 0
        self.state.compute_steps(self.args, self.state.max_steps)  # save, evaluate and log by the current settings
        self.best.restore(progress.evaluations, checkpoint, self.state.global_step)
        if progress.evaluation_due:
            self.evaluate()
        self.control.should_training_stop = self.best.is_final
