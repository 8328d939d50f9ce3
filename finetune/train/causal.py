"""Fitting LoRA matrices on a causal language model, with TRL's SFTTrainer underneath."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from finetune.base_model import BaseModel
from finetune.errors import InputError, TrainingDivergedError
from finetune.models import compute_dtype
from finetune.recipe import AdapterRecipe
from finetune.train import plot, tracker
from finetune.train.rows import Rows

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase
    from trl import SFTConfig

    from finetune.train import Step
    from finetune.train.loss import SupervisedTrainer

TRAINING_LOG = "training.jsonl"


@dataclass(frozen=True)
class Outcome:
    """A fitted model and what the fit took; losses in nats per supervised token."""

    model: Any  # a PeftModel
    steps: int
    epochs: float
    train_loss: float
    eval_loss: float | None
    tokens: int
    supervised_tokens: int
    seconds: float


def fit(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    rows: Rows,
    held_out: Rows,
    recipe: AdapterRecipe,
    folder: Path,
    on_step: Callable[[Step], None] | None,
) -> Outcome:
    """Train LoRA matrices; writes `training.jsonl` and `training.png` into `folder`.

    Raises:
        TrainingDivergedError: a logged loss or gradient norm, or a final weight, is not finite.
    """
    from transformers import set_seed

    set_seed(recipe.seed)
    with tracker.run(recipe, folder) as tracked:
        trainer = make_trainer(model, tokenizer, rows, held_out, recipe, folder)
        journal = Journal(folder / TRAINING_LOG, trainer, on_step)
        trainer.add_callback(journal.callback())
        started = time.monotonic()
        output = trainer.train()
        seconds = time.monotonic() - started - journal.evaluating
        eval_loss = _evaluate(trainer, held_out, recipe)
        adapted: Any = trainer.model
        _require_finite(adapted)
        plot.draw(folder / TRAINING_LOG, folder / "training.png")
        epochs = float(trainer.state.epoch or 0)
        outcome = Outcome(
            adapted,
            trainer.state.global_step,
            epochs,
            float(output.training_loss),
            eval_loss,
            trainer.tokens,
            trainer.supervised_tokens,
            seconds,
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
) -> SupervisedTrainer:
    """An SFTTrainer over rows that are rendered already: TRL neither tokenises nor cuts nor drops anything."""
    from peft import LoraConfig
    from transformers import PrinterCallback

    from finetune.train.loss import SupervisedTrainer

    targets = recipe.target_modules if isinstance(recipe.target_modules, str) else list(recipe.target_modules)
    lora = LoraConfig(
        task_type="CAUSAL_LM",
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=targets,
        bias="none",
    )
    try:
        trainer = SupervisedTrainer(
            model=model,
            args=trainer_arguments(recipe, folder, evaluate_every=recipe.eval_steps if held_out.rendered else None),
            train_dataset=rows.to_dataset(),
            eval_dataset=held_out.to_dataset() if held_out.rendered else None,
            processing_class=tokenizer,
            peft_config=lora,
        )
    except ValueError as error:
        if "target" not in str(error).lower():
            raise
        raise InputError(f"--target-modules: {str(error).splitlines()[0]}") from None
    trainer.remove_callback(PrinterCallback)
    adapted: Any = trainer.model
    restore_adapter_precision(adapted)
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
        optim="paged_adamw_8bit" if gpu and recipe.load_in_4bit else "adamw_torch",
        bf16=gpu and compute_dtype(recipe) == torch.bfloat16,
        use_cpu=not gpu,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="group_by_length",
        dataloader_pin_memory=gpu,
        eval_strategy="steps" if evaluate_every else "no",
        eval_steps=evaluate_every,
        prediction_loss_only=True,
        save_strategy="no",
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


class Journal:
    """Writes `training.jsonl`, reports progress, and stops a run whose numbers are not finite."""

    def __init__(self, file: Path, trainer: SupervisedTrainer, on_step: Callable[[Step], None] | None) -> None:
        self.file, self.trainer, self.on_step = file, trainer, on_step
        self.started = time.monotonic()
        self.evaluating = 0.0  # seconds
        self.loss = math.nan
        self._before_evaluation = 0.0

    def callback(self) -> Any:
        """The Trainer's hooks into this journal."""
        from transformers import TrainerCallback

        journal = self

        class JournalCallback(TrainerCallback):
            def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.started = time.monotonic()

            def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.write(state, kwargs["logs"])

            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                journal.report(state)
                journal._before_evaluation = time.monotonic()

            def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                if state.global_step < state.max_steps:
                    journal.evaluating += time.monotonic() - journal._before_evaluation

        return JournalCallback()

    def write(self, state: Any, logs: dict[str, Any]) -> None:
        """Append one line; numbers only."""
        for name in ("loss", "grad_norm", "eval_loss"):
            if name in logs and not math.isfinite(float(logs[name])):
                raise TrainingDivergedError(
                    f"Training diverged at step {state.global_step}: {name} is {logs[name]}. Nothing was written. Lower "
                    "--learning-rate (a tenth is a good next try) or raise the warm-up"
                )
        if "loss" in logs:
            self.loss = float(logs["loss"])
        names = ("loss", "eval_loss", "grad_norm", "learning_rate")
        line = {"step": state.global_step, "epoch": round(float(state.epoch or 0), 4)}
        line |= {name: float(logs[name]) for name in names if name in logs}
        if "loss" not in logs and "eval_loss" not in logs:
            return  # the Trainer's summary at the end, which the manifest has
        line |= {"tokens": self.trainer.tokens, "seconds": round(time.monotonic() - self.started, 3)}
        with self.file.open("a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def report(self, state: Any) -> None:
        """Tell the caller how far training is."""
        if self.on_step is None:
            return
        from finetune.train import Step

        elapsed = time.monotonic() - self.started - self.evaluating
        remaining = elapsed / state.global_step * (state.max_steps - state.global_step)
        rate = self.trainer.tokens / elapsed
        self.on_step(Step(state.global_step, state.max_steps, float(state.epoch or 0), self.loss, rate, remaining))


def save(outcome: Outcome, base: BaseModel, folder: Path) -> None:
    """Write the adapter in PEFT's layout, naming the base model by what others know it by, never by a local path."""
    config = outcome.model.peft_config["default"]
    config.base_model_name_or_path = base.name
    config.revision = base.revision
    outcome.model.save_pretrained(str(folder), safe_serialization=True, save_embedding_layers=False)
    (folder / "README.md").unlink(missing_ok=True)  # PEFT's empty card


def _evaluate(trainer: SupervisedTrainer, held_out: Rows, recipe: AdapterRecipe) -> float | None:
    if not held_out.rendered or recipe.eval_steps == 0:
        return None
    return float(trainer.evaluate()["eval_loss"])


def _require_finite(model: torch.nn.Module) -> None:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and not bool(parameter.isfinite().all()):
            raise TrainingDivergedError(
                f"Training diverged: {name} is not finite. Nothing was written. Lower --learning-rate"
            )
