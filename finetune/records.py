"""The records that pass between the stages of preparation: frozen, slotted and based on the standard library alone."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

Role = Literal["system", "user", "assistant", "tool"]
# What a domain may ask.
RecipeTask = Literal["chat", "classification", "qa", "summarization", "translation", "code", "text"]
Task = Literal[RecipeTask, "preference"]
# How generated answers can be scored.
TextMetric = Literal["chrf", "rouge_l", "edit_similarity", "token_f1", "exact_match", "number_match"]
Rating = Literal["desirable", "undesirable"]
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

SEPARATOR, NO_LABEL = "; ", "none"  # of several labels as an answer; the answer if there are none
ROLES: tuple[str, ...] = get_args(Role)
TASKS: tuple[str, ...] = get_args(Task)
RATINGS: tuple[Rating, ...] = get_args(Rating)
SPLITS: tuple[Split, ...] = get_args(Split)
# The words that Hugging Face `datasets` recognises in names of files and folders.
SPLIT_WORDS: Mapping[str, Split] = {
    **dict.fromkeys(["train", "training"], "train"),
    **dict.fromkeys(["validation", "valid", "val", "dev"], "validation"),
    **dict.fromkeys(["test", "testing", "eval", "evaluation"], "test"),
}


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A call of a function: its name, its arguments as a JSON object, and the id that its result refers to."""

    name: str
    arguments: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn of a conversation.

    A turn of the assistant may contain tool calls. A turn of the role `tool` is the result of one: `tool_call_id` refers to
    the call, and `name` is that of the function.
    """

    role: Role
    content: str
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None

    @property
    def text(self) -> str:
        """The content and the tool calls, for readers and for comparisons."""
        if not self.tool_calls:
            return self.content
        calls = [f"{call.name}({call.arguments})" for call in self.tool_calls]
        return "\n".join([self.content, *calls] if self.content else calls)


@dataclass(frozen=True, slots=True)
class Example:
    """One row of a corpus: a conversation whose last turn is the assistant's, and its metadata.

    A row of continued pretraining (`task == "text"`) is a single assistant message. A row of preference tuning
    (`task == "preference"`) has either a second conversation, `rejected`, which ends with a worse answer to the same prompt,
    or a `Rating` as its label. `tools` is a JSON list of the functions that the assistant may call.

    A row with several labels has them in `labels`, in the order of `choices`, and no `label`; there may be none. `context` is
    the passage that the last question contains and asks about: the text of a question and answer, the second of two texts.
    """

    id: str
    messages: tuple[Message, ...]
    task: Task
    label: str | None = None
    choices: tuple[str, ...] = ()
    group: str | None = None
    source: str = ""
    license: str = ""
    tools: str | None = None
    rejected: tuple[Message, ...] = ()
    labels: tuple[str, ...] | None = None
    context: str | None = None

    @property
    def prompt(self) -> tuple[Message, ...]:
        """Everything before the answer: of a pair, what both conversations begin with."""
        return self.messages[: count_alike(self.messages[:-1], self.rejected) if self.rejected else -1]

    @property
    def answer(self) -> str:
        """The assistant's last turn."""
        return self.messages[-1].content

    @property
    def conversations(self) -> tuple[tuple[Message, ...], ...]:
        """The conversation and, of a pair, the one with the rejected answer."""
        return (self.messages, self.rejected) if self.rejected else (self.messages,)

    @property
    def turns(self) -> tuple[Message, ...]:
        """Every turn once: the conversation and, of a pair, the rejected answer."""
        return (*self.messages, *self.rejected[len(self.prompt) :]) if self.rejected else self.messages

    @property
    def uses_tools(self) -> bool:
        """Whether the row names tools, calls them or contains their results."""
        return self.tools is not None or any(turn.tool_calls or turn.role == "tool" for turn in self.turns)


def name_tools(tools: str) -> list[str]:
    """The names of the functions in a JSON list of tools."""
    return [tool["function"]["name"] for tool in json.loads(tools)]


def count_alike(one: Sequence[object], other: Sequence[object]) -> int:
    """The number of items that two sequences begin with alike."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((number for number, (left, right) in pairs if left != right), min(len(one), len(other)))


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
    `encoding` is that of its text, if it is a plain text and not UTF-8. Documents with the same `group` share a split.
    """

    title: str | None
    sections: tuple[Section, ...]
    unused: Mapping[str, int] = field(default_factory=dict)
    encoding: str | None = None
    group: str | None = None


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
