"""Fits LoRA matrices, and the head of an encoder, using TRL's SFTTrainer."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from finetune.errors import EvaluationStoppedError, StoppedError
from finetune.machine import release_memory
from finetune.models.find import BaseModel
from finetune.models.heads import Head, write_head_config
from finetune.recipe import AdapterRecipe
from finetune.trackers.tracked_run import open_run
from finetune.train import plot
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.mixture import Mixture
from finetune.train.batches.rows import Rows
from finetune.train.checkpoints.checkpoint import JOURNAL, Checkpoint, Checkpoints
from finetune.train.checkpoints.disk import require_room
from finetune.train.fast.lora_linear import round_frozen_weights
from finetune.train.journal import Journal
from finetune.train.objectives.classification import Classification
from finetune.train.objectives.extraction import Extraction
from finetune.train.objectives.generation import Generation
from finetune.train.objectives.objective import Objective
from finetune.train.objectives.preference import Preference
from finetune.train.progress import Outcome, Step
from finetune.train.ranks.group import Ranks
from finetune.train.start import fit_untouched_base, start_adapter
from finetune.train.trainer import SupervisedTrainer
from finetune.train.validation import Validation


def fit(
    *,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    held_out: Rows,
    recipe: AdapterRecipe,
    head: Head | None,
    folder: Path,
    tracker_dir: Path,
    checkpoints: Checkpoints,
    start: Checkpoint | None,
    validation: Validation | None,
    mixture: Mixture | None,
    ranks: Ranks,
    on_step: Callable[[Step], None] | None,
    on_line: Sequence[Callable[[dict[str, float]], None]] = (),
) -> Outcome:
    """Train LoRA matrices, from `start` if given, and write `training.jsonl` and `training.png` to `folder`.

    Raises:
        TrainingDivergedError: a loss, a gradient or a weight is not finite.
        StoppedError: SIGINT or SIGTERM arrived; a checkpoint was written.
        InputError: checkpoints and adapter do not fit on the disk.
        DiskFullError: the disk is full.
    """
    set_seed(recipe.seed)
    resumed = start.tracked_run(recipe.report_to) if start else None
    tracked = checkpoints.lineage["config"] | ({} if ranks.is_first else {"report_to": "none"})
    with open_run(tracked, tracker_dir, resumed) as run:
        checkpoints.record(tracked_run=run.id)
        journal = Journal(folder / JOURNAL, on_step, [run.log, *on_line])
        trainer = SupervisedTrainer(
            model=model,
            tokenizer=tokenizer,
            objective=make_objective(model, NumberedRows(rows, held_out), recipe, head, int(tokenizer.pad_token_id)),
            recipe=recipe,
            journal=journal,
            checkpoints=checkpoints,
            validation=validation,
            mixture=mixture,
            ranks=ranks,
        )
        pissa = recipe.init_lora_weights == "pissa"
        first = {name: each.detach().cpu().clone() for name, each in trainer.trainable.items()} if pissa else {}
        start_adapter(trainer.model, trainer.objective, recipe)
        adapted: Any = trainer.model
        is_mixed = recipe.compute_dtype == "mixed"
        if is_mixed:
            round_frozen_weights(adapted)
            release_memory()
        count = recipe.save_total_limit + 1 if recipe.save_steps else 1  # one of the last step, before its evaluation
        if ranks.is_first:
            require_room(checkpoints.folder, count, trainer.checkpoint_bytes, trainer.trainable_weights)
        with trainer.interrupt.listen(), suppress(EvaluationStoppedError):
            output = trainer.train(resume_from_checkpoint=str(start.path) if start else None)
            seconds = journal.training_seconds
            trainer.evaluate_at_end()
        if (number := trainer.interrupt.agree()) is not None:
            raise _stop(number, trainer)
        trainer.forget_optimizer()
        plot.draw(journal.file, folder / "training.png", trainer.best.metric)
        outcome = Outcome(
            model=trainer.model,
            first=first,
            steps=trainer.state.global_step,
            epochs=float(trainer.state.epoch or 0),
            planned_steps=trainer.state.max_steps,
            train_loss=float(output.training_loss),
            held_out=trainer.best.chosen.scores if trainer.best.chosen else {},
            metric=trainer.best.metric if trainer.best.chosen else None,
            adapter_step=trainer.best.chosen.step if trainer.best.chosen else trainer.state.global_step,
            counts=journal.counts,
            seconds=seconds,
            seconds_before=journal.seconds_before,
            precision="mixed" if is_mixed else str(model.dtype).removeprefix("torch."),
            truncated=rows.truncated,
            held_out_truncated=held_out.truncated,
            resumed_from=start.path.name if start else None,
        )
        run.finish(outcome.figures, outcome.steps)
    return outcome


def make_objective(
    model: PreTrainedModel, rows: NumberedRows[Any], recipe: AdapterRecipe, head: Head | None, pad_token: int
) -> Objective:
    """What the run learns."""
    if head is None:
        kind = Preference if recipe.method == "dpo" else Generation
        return kind(model, rows, recipe, pad_token)
    if head.kind == "extraction":
        return Extraction(model, rows, recipe, pad_token)
    return Classification(model, rows, recipe, head, pad_token)


def save_adapter(outcome: Outcome, base: BaseModel, folder: Path) -> None:
    """Write the adapter in PEFT's format, with the public name of the base model instead of a local path."""
    config = outcome.model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.revision = base.revision
    if config.task_type != Generation.task_type:
        config.modules_to_save = sorted(set(config.modules_to_save))  # PEFT repeats the names that it knows
        if config.task_type == Extraction.task_type:
            config.task_type = None  # PeftModelForQuestionAnswering drops token types (peft 0.21.2); PeftModel does not
        write_head_config(outcome.model.get_base_model(), folder)
    config.init_lora_weights, config.eva_config = True, None  # a loaded adapter has its weights
    state = None
    if outcome.first:
        state = outcome.model.state_dict()
        state |= fit_untouched_base({name: state[name].cpu() for name in outcome.first}, outcome.first, config)
    outcome.model.create_or_update_model_card = lambda folder: None  # slmtune writes its own
    outcome.model.save_pretrained(str(folder), state_dict=state, safe_serialization=True, save_embedding_layers=False)


def _stop(number: int, trainer: SupervisedTrainer) -> StoppedError:
    """The error that ends a run stopped by a signal, after which the trainer has written a checkpoint."""
    state, checkpoints = trainer.state, trainer.checkpoints
    return StoppedError(
        number,
        f"Stopped by {signal.Signals(number).name} after step {state.global_step} of {state.max_steps}; the checkpoint is in "
        f"{checkpoints.folder}. Resume with: {checkpoints.resume_command}",
    )
