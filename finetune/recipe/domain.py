"""What a domain is: `datasets/<name>/recipe.yaml` and the folder that contains it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from pydantic import Field, field_validator, model_validator

from finetune.errors import UnknownNameError, did_you_mean
from finetune.recipe.scrub import ScrubRecipe
from finetune.recipe.strict import Strict, read_yaml, validate
from finetune.records import RecipeTask, Split, TextMetric

CUSTOM_DOMAIN = "custom"  # the workspace of a corpus without a recipe


class TaskRecipe(Strict):
    """How a row becomes a question: the type of task, its prompt and, for classification, its choices."""

    task: RecipeTask
    prompt: str = Field(
        description="Jinja file, relative to the recipe; it sees the row's mapped columns and `choices`."
    )
    system: str | None = Field(
        None, description="System message for every row of the task; {choices} is replaced with the list of choices."
    )
    choices: tuple[str, ...] = ()
    multi_label: bool = Field(False, description="Whether a row may have several of the choices, or none.")
    metrics: tuple[TextMetric, ...] = Field(
        (), description="How generated answers are scored, the headline first; empty: by the type of the task."
    )
    default: bool = Field(True, description="Whether the task is read when no --task is given.")

    @model_validator(mode="before")
    @classmethod
    def _name_choices(cls, data: Any) -> Any:
        """Write the choices into the system message; in the prompt they would make all short questions look alike."""
        if isinstance(data, dict) and isinstance(data.get("system"), str) and isinstance(data.get("choices"), list):
            return data | {"system": data["system"].replace("{choices}", ", ".join(map(str, data["choices"])))}
        return data

    @model_validator(mode="after")
    def _choices_fit(self) -> Self:
        if (self.task == "classification") != bool(self.choices):
            raise ValueError("a classification task needs choices, and no other task has them")
        if self.multi_label and not self.choices:
            raise ValueError("multi_label is for classification tasks")
        if self.metrics and self.choices:
            raise ValueError("metrics are for generated answers; a classification is scored by its labels")
        return self


class SourceRecipe(Strict):
    """Where rows come from and what their columns mean."""

    id: str
    uri: str = Field(
        description="A path or glob relative to the recipe, or hf://datasets/ID[@revision][:config][:split]."
    )
    license: str
    task: str = Field(description="A key of the recipe's tasks.")
    map: dict[str, str] = Field(
        default_factory=dict, description="Name in the prompt -> column; dots select nested fields."
    )
    labels: dict[str, str] = Field(
        default_factory=dict, description="Value in the label column -> answer; a list maps the numbers 0, 1, 2 …"
    )
    label_separator: str | None = Field(
        None, min_length=1, description="What divides several labels in a text of the label column."
    )
    answer_template: str | None = Field(
        None,
        description="Jinja template that builds the label or answer from the mapped columns if no column holds it.",
    )
    splits: dict[str, Split | None] = Field(
        default_factory=dict,
        description="Split of the source -> split of the corpus, or null to skip it; rows of other splits are divided "
        "among train and the splits not listed here.",
    )
    test_ids: str | None = Field(
        default=None, description="File, relative to the recipe, with the ids of the official test set."
    )
    drop_unanswered: bool = Field(False, description="Drop rows without an answer instead of stopping at the first.")
    noncommercial: bool = Field(
        False, description="Whether the licence forbids commercial use; read only with --accept-noncommercial."
    )
    default: bool = Field(True, description="Whether the source is read without --include.")

    @field_validator("labels", mode="before")
    @classmethod
    def _number_labels(cls, value: object) -> object:
        return {str(number): name for number, name in enumerate(value)} if isinstance(value, list) else value

    @property
    def is_remote(self) -> bool:
        """Whether rows come from the Hub."""
        return self.uri.startswith("hf://")


class EvalRecipe(Strict):
    """An eval set, stored as hashes, whose items no row may contain."""

    id: str
    index: str = Field(
        description="File, relative to the recipe, made with examples/index_eval_set.py; contains no text."
    )
    license: str
    source: str = Field(
        description="Where to find the set itself, for readers: hf://datasets/ID[@revision][:config][:split]."
    )


class DomainRecipe(Strict):
    """A domain: its tasks, its sources and a bundled sample."""

    name: str
    title: str
    description: str
    caution: str = Field(description="A one-sentence warning that every card and README repeats.")
    languages: tuple[str, ...] = Field(
        (), description="Rows in other languages are dropped; empty: all languages are kept."
    )
    scrub: ScrubRecipe | None = Field(None, description="The project's own rules about personal data.")
    tasks: dict[str, TaskRecipe]
    sources: tuple[SourceRecipe, ...]
    sample: tuple[SourceRecipe, ...]
    evals: tuple[EvalRecipe, ...] = Field((), description="Rows that contain items of these eval sets are dropped.")

    @model_validator(mode="after")
    def _evals_differ(self) -> Self:
        ids = [recipe.id for recipe in self.evals]
        for name in ids:
            if ids.count(name) > 1:
                raise ValueError(f"{ids.count(name)} evals share the id {name!r}. Give each its own")
        return self

    @model_validator(mode="after")
    def _tasks_exist(self) -> Self:
        for source in (*self.sources, *self.sample):
            if source.task not in self.tasks:
                raise ValueError(
                    f"source {source.id}: no task is called {source.task!r}. {did_you_mean(source.task, self.tasks)}"
                )
        return self


@dataclass(frozen=True)
class Domain:
    """A domain's recipe and the folder that its paths are relative to."""

    recipe: DomainRecipe
    folder: Path

    @property
    def name(self) -> str:
        """The name to pass to `--domain`."""
        return self.recipe.name

    def prompt_text(self, task: str) -> str:
        """The Jinja source of a task's prompt."""
        return (self.folder / self.recipe.tasks[task].prompt).read_text("utf-8")


def recipes_folder() -> Path:
    """The folder of `datasets/` and `adapters/`: in the package of a wheel, next to `finetune/` in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "_recipes"
    checkout = package.parent
    if (checkout / "pyproject.toml").is_file() and (checkout / "datasets").is_dir():
        return checkout
    return packaged


def domain_names() -> list[str]:
    """The names of the bundled domains, sorted."""
    return sorted(path.parent.name for path in (recipes_folder() / "datasets").glob("*/recipe.yaml"))


def load_domain(name: str) -> Domain:
    """Read a bundled domain by name, or any domain folder by path.

    Raises:
        UnknownNameError: neither a bundled domain nor a folder with a recipe.yaml.
        ConfigError: the recipe is invalid.
    """
    folder = Path(name) if (Path(name) / "recipe.yaml").is_file() else recipes_folder() / "datasets" / name
    if not (folder / "recipe.yaml").is_file():
        hint = "A domain is a folder with a recipe.yaml; to use files without one: slmtune prepare --source FILE"
        raise UnknownNameError("domain", name, domain_names(), hint)
    file = folder / "recipe.yaml"
    return Domain(validate(DomainRecipe, read_yaml(file), str(file), file), folder)
