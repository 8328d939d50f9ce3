"""Recipes: what a domain is (`datasets/<name>/recipe.yaml`) and how an adapter is trained (`adapters/<name>.yaml`).

YAML and Jinja only; a recipe never executes code. Every default stands here and nowhere else; precedence is
flag > `--config FILE.yaml` > recipe > default. An unknown key is an error that names the nearest one.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator, model_validator

from finetune.errors import ConfigError, UnknownNameError, did_you_mean
from finetune.options import SEED
from finetune.records import Split, Task

M = TypeVar("M", bound=BaseModel)

DEFAULT_MODEL = "smollm2-135m"
# LoRA wants about ten times the rate of full fine-tuning (Schulman et al., LoRA Without Regret, 2025), and the smallest
# models more: two epochs of the finance sample at 1e-3 took SmolLM2-135M from weighted F1 0.20 to 0.81 (n = 180).
SMALL_MODEL, SMALL_MODEL_RATE, LARGER_MODEL_RATE = 200_000_000, 1e-3, 2e-4
CUSTOM_DOMAIN = "custom"  # the workspace of a corpus that belongs to no recipe


def _read_share(value: object) -> object:
    """5% as 0.05; what is no percentage is left to the field's own check."""
    if isinstance(value, str) and value.strip().endswith("%"):
        with suppress(ValueError):
            return float(value.strip()[:-1]) / 100
    return value


Share = Annotated[float, BeforeValidator(_read_share)]


class Strict(BaseModel):
    """A frozen model that refuses unknown keys."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class TaskRecipe(Strict):
    """How a row becomes a question: the kind of task, its prompt and, for classification, its answers."""

    task: Task
    prompt: str = Field(description="Jinja file beside the recipe; sees the row's mapped columns and `choices`.")
    system: str | None = Field(
        None, description="The system turn, the same for all rows of the task; {choices} stands for the list of them."
    )
    choices: tuple[str, ...] = ()
    default: bool = Field(True, description="Whether it is read where the user names no --task.")

    @model_validator(mode="before")
    @classmethod
    def _name_choices(cls, data: Any) -> Any:
        """Write the choices into the system turn; in the prompt they would make all short questions alike."""
        if isinstance(data, dict) and isinstance(data.get("system"), str) and isinstance(data.get("choices"), list):
            return data | {"system": data["system"].replace("{choices}", ", ".join(map(str, data["choices"])))}
        return data

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if (self.task == "classification") != bool(self.choices):
            raise ValueError("choices belong to classification tasks, and those need them")
        return self


class SourceRecipe(Strict):
    """Where rows come from and how their columns are read."""

    id: str
    uri: str = Field(description="A path or glob beside the recipe, or hf://datasets/ID[@revision][:config][:split].")
    license: str
    task: str = Field(description="A key of the recipe's tasks.")
    map: dict[str, str] = Field(
        default_factory=dict, description="Name in the prompt -> column; dots reach into structs."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Value in the label column -> answer; a list stands for the numbers from 0."
    )
    answer_template: str | None = Field(
        None,
        description="Jinja text that makes the label or answer out of the mapped columns, where no column holds it.",
    )
    splits: dict[str, Split | None] = Field(
        default_factory=dict,
        description="The source's split -> the corpus's, or null: not read; others are divided among train and the "
        "splits not listed here.",
    )
    test_ids: str | None = Field(
        default=None, description="File beside the recipe with the ids of the official test set."
    )
    drop_unanswered: bool = Field(False, description="Leave out rows without an answer instead of failing on them.")
    noncommercial: bool = Field(False, description="Used only where the user accepts a non-commercial licence.")
    default: bool = Field(True, description="Whether it is read where the user does not --include it.")

    @field_validator("labels", mode="before")
    @classmethod
    def _number_labels(cls, value: object) -> object:
        return {str(number): name for number, name in enumerate(value)} if isinstance(value, list) else value

    @property
    def is_remote(self) -> bool:
        """Whether rows come from the Hub."""
        return self.uri.startswith("hf://")


class EvalRecipe(Strict):
    """An evaluation set that no row may give away, kept as hashes."""

    id: str
    index: str = Field(description="File beside the recipe, made with examples/index_eval_set.py; holds no text.")
    license: str
    source: str = Field(
        description="Where the set itself is, for people: hf://datasets/ID[@revision][:config][:split]."
    )


class DomainRecipe(Strict):
    """A domain: tasks, full sources, and a bundled sample."""

    name: str
    title: str
    description: str
    caution: str = Field(description="One sentence that every card and README repeats.")
    languages: tuple[str, ...] = Field((), description="Rows in other languages are left out; empty: any is kept.")
    tasks: dict[str, TaskRecipe]
    sources: tuple[SourceRecipe, ...]
    sample: tuple[SourceRecipe, ...]
    evals: tuple[EvalRecipe, ...] = Field((), description="Rows that give these sets away are left out.")

    @model_validator(mode="after")
    def _evals_differ(self) -> Self:
        ids = [recipe.id for recipe in self.evals]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"there are {ids.count(name)} evals with the id {name!r}. Give each its own")
        return self

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        for source in (*self.sources, *self.sample):
            if source.task not in self.tasks:
                raise ValueError(
                    f"source {source.id}: there is no task {source.task!r}. {did_you_mean(source.task, self.tasks)}"
                )
        return self


class AdapterRecipe(Strict):
    """How an adapter is trained. The flags of `slmtune train` are these fields."""

    model: str = Field(DEFAULT_MODEL, description="Preset, Hub id or local folder.")
    revision: str | None = Field(None, description="Branch, tag or commit of the base model on the Hub.")
    load_in_4bit: bool = Field(True, description="Quantise the base model to NF4 with double quantisation (QLoRA).")
    compute_dtype: Literal["auto", "float32", "bfloat16"] = Field(
        "auto", description="Precision of matrix products; auto: bfloat16 where the GPU has it, else float32."
    )
    lora_r: int = Field(16, gt=0, le=1024, description="LoRA rank.")
    lora_alpha: int = Field(32, gt=0, description="LoRA scale; the update is multiplied by alpha / r.")
    lora_dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the LoRA matrices.")
    target_modules: str | tuple[str, ...] = Field(
        "all-linear", description="Modules that get LoRA matrices: all-linear, or names separated by commas."
    )
    learning_rate: float | None = Field(
        None, gt=0, lt=1, description="Peak learning rate; not given: 1e-3 below 200 M parameters, else 2e-4."
    )
    lr_scheduler_type: Literal["cosine", "linear", "constant_with_warmup"] = Field(
        "cosine", description="Decay after warm-up."
    )
    warmup_ratio: float = Field(0.05, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    weight_decay: float = Field(0.0, ge=0, description="AdamW weight decay.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are clipped to this norm.")
    num_train_epochs: float = Field(3.0, gt=0, description="Passes over the training split.")
    max_steps: int | None = Field(None, gt=0, description="Stop after this many optimizer steps; overrides the epochs.")
    per_device_train_batch_size: int = Field(8, gt=0, description="Rows a forward pass.")
    gradient_accumulation_steps: int = Field(1, gt=0, description="Forward passes an optimizer step.")
    max_length: int = Field(
        1024, gt=0, description="Longest row, in tokens; longer rows lose their end and are counted."
    )
    max_truncated: Share = Field(
        0.05,
        ge=0,
        le=1,
        description="Share of rows that may lose their end, as 5% or 0.05; with more, training refuses.",
    )
    packing: bool = Field(
        True,
        description="Lay the rows of a batch end to end, without padding; what they begin with alike is computed once.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations: less memory, about 20 % slower.")
    eval_steps: int | None = Field(
        None, ge=0, description="Measure held-out loss every N steps; 0: never; not given: at the end."
    )
    save_steps: int = Field(
        100, ge=0, description="Write a checkpoint every N steps, and at the end; 0: only when stopped by a signal."
    )
    save_total_limit: int = Field(2, ge=1, description="Checkpoints that are kept while training.")
    logging_steps: int = Field(5, gt=0, description="Write a line of training.jsonl every N steps.")
    seed: int = Field(SEED, ge=0, description="Seed of LoRA initialisation, dropout and row order.")
    report_to: Literal["none", "wandb"] = Field("none", description="Experiment tracker.")

    @property
    def shares_prefixes(self) -> bool:
        """Whether what rows of a batch begin with alike is computed once: with dropout each row has a mask of its own."""
        return self.packing and self.lora_dropout == 0

    def precision(self, *, has_bfloat16: bool) -> Literal["float32", "bfloat16"]:
        """The precision of matrix products on a device."""
        if self.compute_dtype == "auto":
            return "bfloat16" if has_bfloat16 else "float32"
        return self.compute_dtype

    def for_model(self, parameters: int) -> AdapterRecipe:
        """The recipe with what depends on the size of the base model filled in."""
        if self.learning_rate is not None:
            return self
        rate = SMALL_MODEL_RATE if parameters < SMALL_MODEL else LARGER_MODEL_RATE
        return self.model_copy(update={"learning_rate": rate})

    @field_validator("target_modules", mode="before")
    @classmethod
    def _split_names(cls, value: object) -> object:
        if isinstance(value, str) and "," in value:
            return tuple(name.strip() for name in value.split(",") if name.strip())
        return tuple(value) if isinstance(value, list) else value


@dataclass(frozen=True)
class Domain:
    """A domain's recipe and the folder that its relative paths start from."""

    recipe: DomainRecipe
    folder: Path

    @property
    def name(self) -> str:
        """The name that `--domain` takes."""
        return self.recipe.name

    def prompt_text(self, task: str) -> str:
        """The Jinja source of a task's prompt."""
        return (self.folder / self.recipe.tasks[task].prompt).read_text("utf-8")


def recipes_folder() -> Path:
    """The folder that holds `datasets/` and `adapters/`: packaged in a wheel, beside `finetune/` in a checkout."""
    package = Path(__file__).parent
    packaged = package / "_recipes"
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "datasets").is_dir():
        return checkout
    return packaged


def domain_names() -> list[str]:
    """The bundled domains, sorted."""
    return sorted(path.parent.name for path in (recipes_folder() / "datasets").glob("*/recipe.yaml"))


def load_domain(name: str) -> Domain:
    """Read a bundled domain by name, or any domain folder by path.

    Raises:
        UnknownNameError: no bundled domain has this name and no such folder holds a recipe.yaml.
        ConfigError: the recipe does not validate.
    """
    folder = Path(name) if (Path(name) / "recipe.yaml").is_file() else recipes_folder() / "datasets" / name
    if not (folder / "recipe.yaml").is_file():
        hint = "A domain is a folder with a recipe.yaml; for your own files without one, use: slmtune prepare --source FILE"
        raise UnknownNameError("domain", name, domain_names(), hint)
    file = folder / "recipe.yaml"
    return Domain(validate(DomainRecipe, read_yaml(file), str(file)), folder)


def load_adapter_recipe(
    domain: str | None, config: Path | None = None, overrides: Mapping[str, Any] | None = None
) -> AdapterRecipe:
    """The training configuration: flags over `--config` over the domain's recipe over the defaults.

    Raises:
        ConfigError: every problem of every layer, at once.
    """
    values: dict[str, Any] = {}
    recipe = recipes_folder() / "adapters" / f"{Path(domain).name}.yaml" if domain else None
    sources = []
    for file in (recipe, config):
        if file is not None and (file is config or file.is_file()):
            values |= read_yaml(file)
            sources.append(file.name)
    given = {key: value for key, value in (overrides or {}).items() if value is not None}
    if given:
        sources.append("command line")
    return validate(AdapterRecipe, values | given, " + ".join(sources) or "defaults")


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        ConfigError: the file is missing, is no YAML, or is no mapping; names the line.
    """
    try:
        data = yaml.safe_load(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [f"cannot be read ({getattr(error, 'strerror', None) or 'not UTF-8'})"]) from None
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ConfigError(f"{path}:{line}", [f"not valid YAML ({error.problem})"]) from None
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise ConfigError(str(path), ["the file must be a mapping of keys to values"])
    return {str(key): value for key, value in data.items()}


def validate(model: type[M], data: Mapping[str, Any], source: str) -> M:
    """Build a pydantic model, turning all of its complaints into one `ConfigError`."""
    try:
        return model.model_validate(dict(data))
    except ValidationError as error:
        raise ConfigError(source, [_describe(item, model) for item in error.errors()]) from None


def _describe(item: Any, model: type[BaseModel]) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        fields: list[str] = list(model.model_fields) if len(item["loc"]) == 1 else []
        return f"unknown key {where!r}. {did_you_mean(where, fields)}" if fields else f"unknown key {where!r}"
    message = item["msg"].removeprefix("Value error, ")
    value = item.get("input")
    shown = f", got {value!r}" if isinstance(value, str | int | float | bool) else ""
    return f"{where}: {message}{shown}" if where else message
