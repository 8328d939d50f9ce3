"""Fitting LoRA matrices on a causal language model, with TRL's SFTTrainer underneath."""

from __future__ import annotations

import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.errors import InputError, StoppedError, TrainingDivergedError
from finetune.models.find import BaseModel
from finetune.models.load import compute_dtype
from finetune.recipe import AdapterRecipe
from finetune.train import plot, tracker
from finetune.train.batches.rows import Rows
from finetune.train.checkpoints.checkpoint import JOURNAL, Checkpoint, Checkpoints, step_of
from finetune.train.checkpoints.disk import require_room
from finetune.train.interrupt import EvaluationStoppedError, Interrupt
from finetune.train.journal import Journal

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from finetune.train.request import Step
    from finetune.train.trainer import DurableTrainer


@dataclass(frozen=True)
class Outcome:
    """A fitted model and what the fit took; losses in nats per supervised token."""

    model: Any  # a PeftModel
    steps: int
    epochs: float
    train_loss: float
    eval_loss: float | None
    tokens: int
    computed_tokens: int
    supervised_tokens: int
    seconds: float
    seconds_before: float  # the part of them that passed before the run was resumed


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    held_out: Rows,
    recipe: AdapterRecipe,
    folder: Path,
    on_step: Callable[[Step], None] | None,
    checkpoints: Checkpoints,
    start: Checkpoint | None,
) -> Outcome:
    """Train LoRA matrices, from `start` on where it is given; writes `training.jsonl` and `training.png` into `folder`.

    Raises:
        TrainingDivergedError: a loss, a gradient or a final weight is not finite.
        StoppedError: SIGINT or SIGTERM came; a checkpoint is written.
        InputError: checkpoints and adapter do not fit on the disk.
        DiskFullError: the disk has become full.
    """
    from transformers import set_seed

    set_seed(recipe.seed)
    interrupt = Interrupt()
    with tracker.run(recipe, folder) as tracked:
        trainer = make_trainer(model, tokenizer, rows, held_out, recipe, folder)
        trainer.checkpoints = checkpoints
        trainer.journal = Journal(folder / JOURNAL, trainer, on_step)
        trainer.add_callback(trainer.journal.callback())
        trainer.add_callback(interrupt.callback(trainer))
        trainable = sum(parameter.numel() for parameter in trainer.trainable.values())
        require_room(checkpoints.folder, trainable, recipe.save_total_limit + 1 if recipe.save_steps else 0)
        with interrupt.listening(), suppress(EvaluationStoppedError):
            output = trainer.train(resume_from_checkpoint=str(start.path) if start else None)
        if interrupt.number is not None:
            raise stopped(interrupt.number, trainer)
        seconds = trainer.journal.elapsed - trainer.journal.evaluating
        eval_loss = _evaluate(trainer, held_out, recipe)
        adapted: Any = trainer.model
        _require_finite(adapted)
        plot.draw(folder / JOURNAL, folder / "training.png")
        epochs = float(trainer.state.epoch or 0)
        outcome = Outcome(
            adapted,
            trainer.state.global_step,
            epochs,
            float(output.training_loss),
            eval_loss,
            trainer.tokens,
            trainer.computed_tokens,
            trainer.supervised_tokens,
            seconds,
            trainer.seconds_before,
        )
        tracked(outcome)
    return outcome


def make_trainer(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    held_out: Rows,
    recipe: AdapterRecipe,
    folder: Path,
) -> DurableTrainer:
    """An SFTTrainer over rows that are rendered already: TRL neither tokenises nor cuts nor drops anything."""
    from peft import LoraConfig
    from torch import nn
    from transformers import PrinterCallback

    from finetune.train.batches.collate import Numbered, PaddedBatches, choose
    from finetune.train.fast.lora_linear import FusedLinear
    from finetune.train.fast.swiglu import replace_gated_blocks
    from finetune.train.trainer import DurableTrainer

    targets = recipe.target_modules if isinstance(recipe.target_modules, str) else list(recipe.target_modules)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        bias="none",
    )
    lora._register_custom_module({nn.Linear: FusedLinear})
    if not recipe.gradient_checkpointing:  # which keeps even less
        replace_gated_blocks(model)
    numbered = Numbered(rows, held_out)
    training, evaluation = numbered.datasets()
    padded = PaddedBatches(numbered, int(tokenizer.pad_token_id))
    try:
        trainer = DurableTrainer(
            model=model,
            args=trainer_arguments(recipe, folder, evaluate_every=recipe.eval_steps if len(held_out) else None),
            data_collator=padded,
            train_dataset=training,
            eval_dataset=evaluation,
            processing_class=tokenizer,
            peft_config=lora,
        )
        trainer.row_ids = rows.ids
    except ValueError as error:
        if "target" not in str(error).lower():
            raise
        raise InputError(f"--target-modules: {str(error).splitlines()[0]}") from None
    trainer.remove_callback(PrinterCallback)
    adapted: Any = trainer.model
    restore_adapter_precision(adapted)
    # A shared beginning has one dropout mask, where rows by themselves would have one each.
    share = recipe.lora_dropout == 0
    trainer.data_collator = choose(adapted.get_base_model(), padded, recipe.packing, share=share)
    return trainer


def trainer_arguments(recipe: AdapterRecipe, folder: Path, evaluate_every: int | None) -> SFTConfig:
    """The recipe in the words of TRL."""
    import torch
    from trl import SFTConfig

    assert recipe.learning_rate is not None  # AdapterRecipe.for_model filled it in
    gpu = torch.cuda.is_available()
    return SFTConfig(
        output_dir=str(folder / "trainer"),
        max_steps=recipe.max_steps or -1,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=recipe.per_device_train_batch_size,
        per_device_eval_batch_size=recipe.per_device_train_batch_size,
        gradient_accumulation_steps=recipe.gradient_accumulation_steps,
        activation_checkpointing=recipe.gradient_checkpointing,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,  # a share of the steps where below 1
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim="paged_adamw_8bit" if gpu and recipe.load_in_4bit else "adamw_torch_fused",
        bf16=gpu and compute_dtype(recipe) == torch.bfloat16,
        use_cpu=not gpu,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="random",
        remove_unused_columns=False,
        dataloader_pin_memory=gpu,
        eval_strategy="steps" if evaluate_every else "no",
        eval_steps=evaluate_every,
        prediction_loss_only=True,
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=recipe.save_steps or 1,  # not read without a strategy
        logging_strategy="steps",
        logging_steps=recipe.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would log NaN as 0.0
        disable_tqdm=True,
        report_to=recipe.report_to,
        seed=recipe.seed,
        data_seed=recipe.seed,
    )


def restore_adapter_precision(model: torch.nn.Module) -> None:
    """Give LoRA matrices back their float32.

    SFTTrainer casts them to bfloat16 on a quantised base (trl 1.16, sft_trainer.py, citing arXiv 2305.14314); AdamW
    updates below its 8 bits of precision are then lost, and CPUs multiply bfloat16 slowly. Remove when
    https://github.com/huggingface/peft/issues/2889 makes this a choice.
    """
    import torch

    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.to(torch.float32)


def save(outcome: Outcome, base: BaseModel, folder: Path) -> None:
    """Write the adapter in PEFT's layout, naming the base model by what others know it by, never by a local path."""
    config = outcome.model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.revision = base.revision
    outcome.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def stopped(number: int, trainer: DurableTrainer) -> StoppedError:
    """What a signal ends the run with, once there is a checkpoint of its last step."""
    state, checkpoints = trainer.state, trainer.checkpoints
    done = checkpoints.present()
    if not done or step_of(done[0]) < state.global_step:  # it came after the last step
        trainer.save_checkpoint()
    return StoppedError(
        number,
        f"Stopped by {signal.Signals(number).name} after step {state.global_step} of {state.max_steps}, which is kept in "
        f"{checkpoints.folder}. Go on with: {checkpoints.resume_command}",
    )


def _evaluate(trainer: DurableTrainer, held_out: Rows, recipe: AdapterRecipe) -> float | None:
    if not len(held_out) or recipe.eval_steps == 0:
        return None
    last = [line for line in trainer.state.log_history if "eval_loss" in line]
    if last and last[-1]["step"] == trainer.state.global_step:  # --eval-steps has measured it already
        return float(last[-1]["eval_loss"])
    return float(trainer.evaluate()["eval_loss"])


def _require_finite(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise TrainingDivergedError(
                f"Training diverged: {name} is not finite. No adapter was written. Lower --learning-rate"
            )
