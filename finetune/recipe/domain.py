"""What a domain is: `datasets/<name>/recipe.yaml`, and the folder that it lies in."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from finetune.errors import UnknownNameError, did_you_mean
from finetune.recipe.strict import Strict, read_yaml, validate
from finetune.records import Split, Task

CUSTOM_DOMAIN = "custom"  # the workspace of a corpus that belongs to no recipe


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
    package = Path(__file__).parents[1]
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
