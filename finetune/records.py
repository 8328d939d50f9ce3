"""The records that pass between the stages of preparation: frozen, slotted and based on the standard library alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["system", "user", "assistant"]
Task = Literal["chat", "classification", "qa", "summarization", "translation", "text"]
Split = Literal["train", "validation", "test"]
UnusedKind = Literal["column", "key of a turn", "key", "file", "sheet", "line", "element", "text"]
Cleaning = Literal["full", "light", "none"]
Change = Literal[
    "markup removed",
    "entities decoded",
    "control characters removed",
    "invisible characters removed",
    "line ends unified",
    "mojibake repaired",
    "Unicode normalised",
    "blanks removed",
    "control tokens broken up",
]

ROLES: tuple[str, ...] = get_args(Role)
TASKS: tuple[str, ...] = get_args(Task)
SPLITS: tuple[Split, ...] = get_args(Split)


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a corpus: a conversation whose last turn is the assistant's, and its metadata.

    A row of continued pretraining (`task == "text"`) is a single assistant message.
    """

    id: str
    messages: tuple[Message, ...]
    task: Task
    label: str | None = None
    choices: tuple[str, ...] = ()
    group: str | None = None
    source: str = ""
    license: str = ""

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer."""
        return self.messages[:-1]

    @property
    def answer(self) -> str:
        """The assistant's last turn."""
        return self.messages[-1].content


@dataclass(frozen=True, slots=True)
class Section:
    """A part of a document under one heading; `text` is Markdown without the heading.

    `level` is the heading's depth, 1 for the top; text before the first heading has no heading and level 0.
    """

    heading: str | None
    level: int
    text: str


@dataclass(frozen=True, slots=True)
class Document:
    """The contents of a file that is not a table of rows: a page, a leaflet, a book.

    `unused` counts the elements that the file has and the sections lack, by their name: "navigation", "form field".
    `encoding` is that of its text, if it is a plain text and not UTF-8.
    """

    title: str | None
    sections: tuple[Section, ...]
    unused: Mapping[str, int] = field(default_factory=dict)
    encoding: str | None = None


@dataclass(frozen=True, slots=True)
class Drop:
    """A row that a step of preparation dropped: which, where and why. Never its text."""

    id: str
    step: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unused:
    """What a source has and the corpus lacks: the kind, its name, and how often, in rows for columns and keys of turns.

    The name is one that a file gives (of a column, a file) or that slmtune gives (of an element), never text of a row.
    """

    source: str
    kind: UnusedKind
    name: str
    count: int
