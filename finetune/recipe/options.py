"""What a command can be told beside a recipe: defaults, bounds and descriptions, of which its flags are made.

They stand apart from the stages that read them, so that `slmtune --help` loads no stage's libraries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_type_hints

from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo

from finetune.errors import ConfigError

T = TypeVar("T")

SEED = 42  # of whatever is drawn by chance
ANSWER_TOKENS = 256  # of an answer, where nobody says how long it may get
DEFAULT_RATIO = "0.9/0.05/0.05"


def option(default: T, description: str, *, ge: float | None = None, le: float | None = None, **shown: str) -> T:
    """A field with the help and the bounds of its flag.

    `shown` is what name, type and value do not say: `flag`, `metavar`, and `value` for the default.
    """
    info = Field(default, description=description, ge=ge, le=le, json_schema_extra={**shown})
    if isinstance(default, dict):
        return field(default_factory=lambda: copy(default), metadata={"info": info})
    return field(default=default, metadata={"info": info})


@dataclass(frozen=True, kw_only=True)
class PrepareOptions:
    """How sources become a corpus."""

    sources: tuple[str, ...] = option(
        (),
        "File, folder, pattern, archive, URL or hf://datasets/ID[@REVISION][:CONFIG][:SPLIT]; replaces the recipe's "
        "sources.",
        flag="--source",
    )
    sample: bool = option(False, "Use the rows that come with the domain.")
    tasks: tuple[str, ...] = option((), "Only this task of the domain.", flag="--task")
    include: tuple[str, ...] = option((), "Also this source of the domain, which is off by default.", metavar="ID")
    columns: Mapping[str, str] = option(
        {}, "Which column is text, label, question …", flag="--map", metavar="NAME=COLUMN"
    )
    instruction: str | None = option(None, "The question for rows of text and label without a domain.")
    instruct: bool = option(False, "Make questions and answers out of documents, by rules.")
    chunk_tokens: int = option(  # with the chat template it fits into the 1,024 tokens of a row in training
        768, "Longest piece of a long text, in tokens.", ge=32
    )
    language: str | None = option(
        None, "Keep these languages (en,de), or any.", metavar="CODES", value="the recipe's, else any"
    )
    quality: bool = option(True, "Drop rows that say nothing or repeat themselves.")
    split_ratio: str | None = option(
        None, "Shares of train, validation and test.", metavar="A/B/C", value=DEFAULT_RATIO
    )
    split_by_time: str | None = option(
        None, "The newest rows are test, those before validation.", metavar="COLUMN[=FROM/FROM]"
    )
    stratify: bool = option(False, "Exact shares of each label; added rows may move old ones.")
    limit: int | None = option(None, "Keep so many rows of each source and split.", ge=1)
    seed: int = option(SEED, "Decides which rows --limit and the split take.", ge=0)
    dedup: bool = option(True, "Drop rows that repeat another, exactly or nearly.")
    near_duplicates: float = option(  # Jaccard index of word 5-grams: Lee et al. 2022, C4 and RealNews; 1: only exact
        0.8, "How alike two rows count as one.", ge=0.5, le=1, metavar="SIMILARITY"
    )
    against: tuple[Path, ...] = option((), "Take no row that this earlier corpus has.", metavar="CORPUS")
    decontaminate: tuple[str, ...] = option((), "Also leave out what gives away this eval set.", metavar="SOURCE")
    recipe_evals: bool = option(True, "Leave out what gives away the domain's eval sets.")
    scrub: bool = option(True, "Replace e-mail addresses, account and card numbers.")
    on_error: Literal["fail", "skip"] = option("fail", "What a broken row or file does.")
    accept_noncommercial: bool = option(False, "Also use sources that forbid commercial use.")
    license: str | None = option(None, "Licence of your own rows, as the Hub names it.")
    workers: int = option(1, "Processes; the corpus is the same with any number.", ge=1, value="all cores")


@dataclass(frozen=True, kw_only=True)
class ShowOptions:
    """How much of a corpus is shown."""

    samples: int = option(3, "Rows shown of each task.", ge=0)


@dataclass(frozen=True, kw_only=True)
class EvalOptions:
    """Which rows are asked, and how."""

    split: Literal["test", "validation", "train"] = option("test", "Rows that are asked.")
    tasks: tuple[str, ...] = option((), "Only this task; a task has the name of its source.", flag="--task")
    limit: int | None = option(None, "At most so many rows a task.", ge=1)
    batch_size: int = option(16, "Rows a forward pass.", ge=1)
    max_new_tokens: int = option(160, "Longest generated answer.", ge=1)


@dataclass(frozen=True, kw_only=True)
class ServeOptions:
    """Where the server listens."""

    host: str = option("127.0.0.1", "Address to listen on; others than this machine's own need a key.")
    port: int = option(8000, "Port to listen on; 0: any free one.", ge=0, le=65535)


@dataclass(frozen=True, kw_only=True)
class ChatOptions:
    """How the model answers in a conversation."""

    max_new_tokens: int = option(ANSWER_TOKENS, "Longest answer.", ge=1)
    temperature: float = option(0, "0: always the likeliest word.", ge=0, le=2)


def fields_of(options: type[Any]) -> dict[str, FieldInfo]:
    """The fields of a recipe, or those that `option` made of a dataclass, by name."""
    if issubclass(options, BaseModel):
        return dict(options.model_fields)
    types = get_type_hints(options)
    return {
        item.name: FieldInfo.from_annotated_attribute(types[item.name], item.metadata["info"])
        for item in dataclasses.fields(options)
        if "info" in item.metadata
    }


def shown(name: str, info: FieldInfo) -> dict[str, Any]:
    """How the help shows a field: `flag`, and what else `option` was told."""
    extra = info.json_schema_extra
    return {"flag": f"--{name.replace('_', '-')}", **(extra if isinstance(extra, dict) else {})}


def check(options: Any, problems: Sequence[str] = ()) -> None:
    """Refuse values out of their bounds, and whatever else is wrong with the options.

    Raises:
        ConfigError: all problems at once.
    """
    found = []
    for name, info in fields_of(type(options)).items():
        value = getattr(options, name)
        kind: Any = Annotated[info.annotation, info]
        try:
            TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            reason = error.errors()[0]["msg"].replace("Input should", "it must", 1)
            found.append(f"{shown(name, info)['flag']} {value} cannot be used: {reason}")
    if found or problems:
        raise ConfigError("command line", [*found, *problems])
