"""Translates a recipe into the settings of PEFT and TRL."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig
from torch import nn
from transformers import PreTrainedModel
from trl import SFTConfig

from finetune.models.heads import head_modules
from finetune.models.structure import has_transposed_weights
from finetune.models.targets import ALL
from finetune.recipe import AdapterRecipe
from finetune.train.adapter_checks import find_saved, find_tied
from finetune.train.fast.lora_linear import FusedLinear


def lora_config(recipe: AdapterRecipe, model: PreTrainedModel, task_type: str = "CAUSAL_LM") -> LoraConfig:
    """The LoRA settings for PEFT and a base model, with this package's fused LoRA layer.

    The output projections of state space layers have none: their kernels read the weight, so the matrices would never
    be trained (PEFT refuses them). The head of an encoder has none either: it is trained whole.
    """
    names = [name for name, _ in model.named_modules() if name.endswith(".out_proj")]
    excludes = names and model._is_stateful and recipe.target_modules == ALL
    whole = [] if task_type == "CAUSAL_LM" else list(head_modules(model))
    config = LoraConfig(
        task_type=task_type,
        r=recipe.lora_r,
        lora_alpha=recipe.lora_alpha,
        lora_dropout=recipe.lora_dropout,
        target_modules=recipe.target_modules if isinstance(recipe.target_modules, str) else list(recipe.target_modules),
        exclude_modules=["out_proj"] if excludes else _below(whole),
        fan_in_fan_out=has_transposed_weights(model),
        bias="none",
        init_lora_weights="pissa" if recipe.init_lora_weights == "pissa" else True,  # the others: start_adapter
        use_rslora=recipe.use_rslora,
        use_dora=recipe.use_dora,
        rank_pattern=dict(recipe.rank_pattern),
        alpha_pattern=dict(recipe.alpha_pattern),
        modules_to_save=[*whole, *recipe.modules_to_save] or None,
        ensure_weight_tying=any(find_saved(recipe.modules_to_save, find_tied(model)).values()),
    )
    config._register_custom_module({nn.Linear: FusedLinear})
    return config


def _below(modules: Sequence[str]) -> str | None:
    """A regular expression for the paths of modules and of what they contain."""
    return rf"({'|'.join(map(re.escape, modules))})(\..*)?" if modules else None


class TrainerArguments(SFTConfig):
    """TRL's settings, but without a warm-up of a single step: its learning rate would be 0, and the step without effect."""

    def get_warmup_steps(self, num_training_steps: int) -> int:
        """How many steps the learning rate rises from 0."""
        steps = int(super().get_warmup_steps(num_training_steps))
        return steps if steps > 1 else 0


def trainer_arguments(recipe: AdapterRecipe, folder: Path, evaluate_every: int | None) -> SFTConfig:
    """Settings of the Trainer, which evaluates every `evaluate_every` steps; None or 0: not during training.

    The Trainer's batches are the rows of a whole optimizer step; `passes.ForwardPasses` divides them.
    """
    assert recipe.learning_rate is not None  # AdapterRecipe.for_model filled it in
    gpu = torch.cuda.is_available()
    arguments = TrainerArguments(
        output_dir=str(folder / "trainer"),
        max_steps=recipe.max_steps or -1,
        num_train_epochs=recipe.num_train_epochs,
        per_device_train_batch_size=recipe.effective_batch,
        per_device_eval_batch_size=recipe.per_device_train_batch_size,
        activation_checkpointing=recipe.gradient_checkpointing,
        learning_rate=recipe.learning_rate,
        lr_scheduler_type=recipe.lr_scheduler_type,
        warmup_steps=recipe.warmup_ratio,  # below 1: a share of the steps
        weight_decay=recipe.weight_decay,
        max_grad_norm=recipe.max_grad_norm,
        optim="paged_adamw_8bit" if gpu and recipe.is_quantized else "adamw_torch_fused",
        bf16=False,  # no autocast: the model has its compute dtype, and FusedLinear says which dtype LoRA has
        use_cpu=not gpu,
        max_length=None,
        dataset_kwargs={"skip_prepare_dataset": True},
        train_sampling_strategy="random",
        remove_unused_columns=False,
        dataloader_pin_memory=False,  # its batches are the numbers of rows
        eval_strategy="steps" if evaluate_every else "no",
        eval_steps=evaluate_every,
        prediction_loss_only=True,
        save_strategy="steps" if recipe.save_steps else "no",
        save_steps=recipe.save_steps or 1,  # ignored without a save strategy
        logging_strategy="steps",
        logging_steps=recipe.logging_steps,
        logging_first_step=True,
        logging_nan_inf_filter=False,  # it would log NaN as 0.0
        disable_tqdm=True,
        report_to="none",  # trackers/ logs what the journal has
        seed=recipe.seed,
        data_seed=recipe.seed,
    )
    arguments._n_gpu = min(arguments.n_gpu, 1)  # the first GPU; the Trainer would spread the model over all
    return arguments
