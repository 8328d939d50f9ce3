"""How an adapter is trained: `adapters/<name>.yaml`, `--config FILE.yaml` and the flags of `slmtune train`."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from finetune.errors import InputError
from finetune.recipe.domain import recipes_folder
from finetune.recipe.options import SEED
from finetune.recipe.strict import Strict, read_yaml, validate
from finetune.recipe.values import Mix, Names, Pattern, Share, Tracker

DEFAULT_MODEL = "smollm2-135m"
Method = Literal["sft", "dpo"]
BestMetric = Literal[
    "auto", "loss", "weighted_f1", "macro_f1", "micro_f1", "accuracy", "answer_f1", "exact_match", "preference_accuracy"
]
EVALUATIONS_PER_RUN, EVALUATIONS_PER_EPOCH, FEWEST_EVALUATIONS = 5, 2, 3
EVALUATION_SHARE = 0.1  # of the training time, for all evaluations if they are more than the fewest
# The time of an evaluation per row, relative to training on it: SmolLM2-135M on the bundled news sentences, on one core.
LOSS_COST, SCORE_COST = 0.45, 0.85
NAME = re.compile(r"\s*[A-Za-z_][\w.]*\s*")  # of a module; a regular expression has other characters
# LoRA needs about ten times the rate of full fine-tuning (Schulman et al., LoRA Without Regret, 2025), and the smallest
# models even more: two epochs of the finance sample at 1e-3 took SmolLM2-135M from weighted F1 0.20 to 0.81 (n = 180).
# So do small encoders: after three epochs of its news, MiniLM-L6 has 0.84 at 1e-3, and 0.37 at 3e-3 (n = 180).
SMALL_MODEL, SMALL_MODEL_RATE, LARGER_MODEL_RATE = 200_000_000, 1e-3, 2e-4
DPO_SHARE = 0.1  # of that rate: Rafailov et al., DPO, 2023, take 1e-6 for all weights, where 1e-5 is common for answers
Quantization = Literal["nf4", "fp4", "int8", "none"]
FOUR_BIT = ("nf4", "fp4")


def _name_quantization(values: Mapping[str, Any]) -> dict[str, Any]:
    """Read `load_in_4bit`, the name that transformers and TRL use, as a `quantization`."""
    named = dict(values)
    in_4bit = named.get("load_in_4bit")
    if not isinstance(in_4bit, bool):
        return named
    del named["load_in_4bit"]
    given = named.setdefault("quantization", "nf4" if in_4bit else "none")
    if in_4bit != (given in FOUR_BIT):
        raise ValueError(
            f"load_in_4bit: {str(in_4bit).lower()} contradicts quantization: {given}. Set only one of them"
        )
    return named


class AdapterRecipe(Strict):
    """How an adapter is trained. The flags of `slmtune train` are these fields."""

    model: str = Field(DEFAULT_MODEL, description="Base model: a preset, Hub id or local folder.")
    revision: str | None = Field(None, description="Branch, tag or commit of the base model on the Hub.")
    task: Literal["auto", "generation", "classification", "extraction"] = Field(
        "auto",
        description="What the model learns: to write answers (generation, a causal model), or the label of a text or the "
        "answer in it (classification, extraction: an encoder); auto: by the model and the rows.",
    )
    class_weights: Literal["none", "balanced"] = Field(
        "none",
        description="Weights of the classes in the loss of --task classification; balanced: rare ones count more.",
    )
    quantization: Quantization = Field(
        "nf4",
        description="Form of the base model's weights: nf4 and fp4 have 4 bits (QLoRA), int8 has 8; none: as stored.",
    )
    compute_dtype: Literal["auto", "float32", "bfloat16", "mixed"] = Field(
        "auto",
        description="Precision of matrix products; mixed: float32, but bfloat16 for those with frozen weights, which is faster "
        "on a CPU with AMX; auto: bfloat16 if the GPU supports it, else float32.",
    )
    lora_r: int = Field(16, gt=0, le=1024, description="LoRA rank.")
    lora_alpha: int = Field(32, gt=0, description="LoRA scale; the update is multiplied by alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    use_rslora: bool = Field(False, description="Multiply the update by alpha / sqrt(r) instead (rsLoRA).")
    use_dora: bool = Field(False, description="Learn the norm of each weight's rows apart from their direction (DoRA).")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear",
        description="Modules that get LoRA matrices: all-linear, names separated by commas, or a regular expression.",
    )
    method: Method = Field(
        "sft", description="sft: learn the answers; dpo: learn to prefer the chosen answer of each pair (DPO)."
    )
    dpo_beta: float = Field(
        0.1, gt=0, description="With --method dpo: how closely the model is tied to the one before training."
    )
    init_lora_weights: Literal["default", "pissa", "loftq", "eva"] = Field(
        "default",
        description="First weights of the matrices: pissa: main directions of the weights; loftq: a correction of the "
        "quantisation; eva: main directions of the layers' inputs; default: no effect.",
    )
    init_adapter: str | None = Field(
        None,
        description="Go on from this adapter: a folder of slmtune or PEFT, whose settings are taken.",
        json_schema_extra={"metavar": "DIR"},
    )
    rank_pattern: Pattern = Field(
        {},
        description="Another rank for the modules of a name; can be repeated.",
        json_schema_extra={"metavar": "NAME=N"},
    )
    alpha_pattern: Pattern = Field(
        {},
        description="Another scale for the modules of a name; can be repeated.",
        json_schema_extra={"metavar": "NAME=N"},
    )
    modules_to_save: Names = Field(
        (), description="Modules that are trained whole and saved with the adapter: names separated by commas."
    )
    neftune_noise_alpha: float = Field(
        0.0, ge=0, description="NEFTune: noise on the embeddings of training rows, such as 5; 0: none."
    )
    learning_rate: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="Peak learning rate; by default 1e-3 for models below 200 M parameters, else 2e-4; for dpo, a tenth.",
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="Shape of the learning rate after warm-up."
    )
    warmup_ratio: float = Field(
        0.05, ge=0, lt=1, description="Share of the steps during which the learning rate rises."
    )
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    num_train_epochs: float = Field(3.0, gt=0, description="Passes over the training split.")
    max_steps: int | None = Field(
        None, gt=0, description="Stop after N optimizer steps; overrides the number of epochs."
    )
    per_device_train_batch_size: int = Field(8, gt=0, description="Rows per forward pass.")
    gradient_accumulation_steps: int = Field(1, gt=0, description="Forward passes per optimizer step.")
    max_length: int = Field(
        1024, gt=0, description="Maximum length of a row in tokens; longer rows are truncated and counted."
    )
    max_truncated: Share = Field(
        0.05,
        ge=0,
        le=1,
        description="Largest share of rows that may be truncated, as 5% or 0.05; above it, training does not start.",
    )
    mix: Mix = Field(
        {},
        description="Shares of the corpus's sources in each epoch, such as finance=0.7,general=0.3.",
        json_schema_extra={"metavar": "NAME=SHARE,…"},
    )
    replay: Share = Field(
        0.0,
        ge=0,
        le=0.9,
        description="Share of each epoch that consists of general questions and answers, as 5% or 0.05.",
    )
    packing: bool = Field(
        True,
        description="Concatenate the rows of a batch instead of padding them; a prefix they share is computed once.",
    )
    gradient_checkpointing: bool = Field(
        False, description="Recompute activations in the backward pass: less memory, about 20 % slower."
    )
    eval_steps: int | None = Field(
        None,
        ge=0,
        description="Evaluate on the validation split every N steps and at the end; 0: never; by default five times per run "
        "or twice per epoch, less often if that would take more than a tenth of the time, but at least three times.",
    )
    metric_for_best_model: BestMetric = Field(
        "auto",
        description="What makes an evaluation the best one; auto: F1 if all validation rows have labels or the model is an "
        "encoder, else loss.",
    )
    load_best_model_at_end: bool = Field(
        True, description="Write the adapter of the best evaluation, not that of the last step."
    )
    patience: int = Field(3, ge=0, description="Stop after N evaluations without a better one; 0: never stop early.")
    save_steps: int = Field(
        100,
        ge=0,
        description="Write a checkpoint every N steps and at the end; 0: at the end and when a signal stops the run.",
    )
    save_total_limit: int = Field(2, ge=1, description="Number of checkpoints to keep during training.")
    logging_steps: int = Field(5, gt=0, description="Add a line to training.jsonl every N steps.")
    seed: int = Field(SEED, ge=0, description="Seed for LoRA initialisation, dropout and row order.")
    report_to: Tracker = Field("none", description="Experiment tracker.")

    @property
    def is_quantized(self) -> bool:
        """Whether the linear layers of the base model have 4 or 8 bits per weight."""
        return self.quantization != "none"

    @property
    def effective_batch(self) -> int:
        """Rows per optimizer step."""
        return self.per_device_train_batch_size * self.gradient_accumulation_steps

    def divide(self, rows: int) -> AdapterRecipe:
        """The recipe with `rows` rows per forward pass, a divisor of the effective batch, which stays the same."""
        passes = self.effective_batch // rows
        return self.model_copy(update={"per_device_train_batch_size": rows, "gradient_accumulation_steps": passes})

    def smaller_passes(self) -> Iterator[AdapterRecipe]:
        """The recipe with fewer rows per forward pass and the same effective batch; the largest passes first."""
        size = self.per_device_train_batch_size
        return (self.divide(rows) for rows in range(size - 1, 0, -1) if size % rows == 0)

    def count_steps(self, rows: int) -> int:
        """Number of optimizer steps in a complete run over `rows` training rows."""
        return self.max_steps or math.ceil(math.ceil(rows / self.effective_batch) * self.num_train_epochs)

    def for_corpus(self, rows: int, held_out: int, scored: int = 0) -> AdapterRecipe:
        """The recipe with `eval_steps` filled in.

        Args:
            rows: of an epoch.
            held_out: rows of the validation split.
            scored: those of them whose answers an evaluation scores, besides their loss.
        """
        if self.eval_steps is not None:
            return self
        every, steps = 0, self.count_steps(rows)
        if held_out:
            passes = steps * self.effective_batch  # of rows through the model
            wanted = max(EVALUATIONS_PER_RUN, EVALUATIONS_PER_EPOCH * passes / rows)
            affordable = EVALUATION_SHARE * passes / (LOSS_COST * held_out + SCORE_COST * scored)
            every = math.ceil(steps / int(max(FEWEST_EVALUATIONS, min(wanted, affordable))))
        return self.model_copy(update={"eval_steps": every})

    @property
    def shares_prefixes(self) -> bool:
        """Whether a prefix that rows share is computed once."""
        return self.packing and not self.is_noisy

    @property
    def is_noisy(self) -> bool:
        """Whether rows are computed with random numbers, of which each row needs its own."""
        return self.lora_dropout > 0 or self.neftune_noise_alpha > 0

    def precision(self, *, has_bfloat16: bool) -> Literal["float32", "bfloat16"]:
        """The precision of the model on this device."""
        if self.compute_dtype == "auto":
            return "bfloat16" if has_bfloat16 else "float32"
        return "bfloat16" if self.compute_dtype == "bfloat16" else "float32"

    def for_model(self, parameters: int, context: int | None = None) -> AdapterRecipe:
        """The recipe with the settings that depend on the base model filled in: its size, and the tokens that it can read.

        Raises:
            InputError: the user set a `max_length` beyond the context.
        """
        recipe = self.within_context(context)
        if recipe.learning_rate is not None:
            return recipe
        rate = SMALL_MODEL_RATE if parameters < SMALL_MODEL else LARGER_MODEL_RATE
        rate *= DPO_SHARE if recipe.method == "dpo" else 1
        return recipe.model_copy(update={"learning_rate": rate})

    def within_context(self, context: int | None) -> AdapterRecipe:
        """The recipe with a `max_length` that the model can read: the default is lowered, a larger setting refused.

        Raises:
            InputError: the user set a `max_length` beyond the context.
        """
        if context is None or self.max_length <= context:
            return self
        if "max_length" in self.model_fields_set:
            raise InputError(
                f"--max-length {self.max_length} is beyond the context of {self.model}, which is {context} tokens. Set "
                f"--max-length {context} or less, or choose a --model with a longer context"
            )
        return self.model_copy(update={"max_length": context})

    @model_validator(mode="before")
    @classmethod
    def _read_aliases(cls, values: object) -> object:
        return _name_quantization(values) if isinstance(values, Mapping) else values

    @field_validator("target_modules", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str) and ("," in value or NAME.fullmatch(value)):
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return tuple(value) if isinstance(value, list) else value


def load_adapter_recipe(
    domain: str | None, config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> AdapterRecipe:
    """Load the training configuration; precedence is flag > `--config` > the domain's recipe > default.

    Raises:
        ConfigError: lists every problem in every layer at once.
    """
    values: dict[str, Any] = {}
    recipe = recipes_folder() / "adapters" / f"{Path(domain).name}.yaml" if domain else None
    sources = []
    for file in (recipe, config):
        if file is not None and (file is config or file.is_file()):
            values = _override(values, read_yaml(file))
            sources.append(file.name)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if given:
        sources.append("command line")
    return validate(AdapterRecipe, _override(values, given), " + ".join(sources) or "defaults")


def _override(values: Mapping[str, Any], stronger: Mapping[str, Any]) -> dict[str, Any]:
    """The values of two layers, in which both names of the quantisation are one setting."""
    names = {"quantization", "load_in_4bit"}
    replaced = names if names & stronger.keys() else set()
    return {key: value for key, value in values.items() if key not in replaced} | {**stronger}
