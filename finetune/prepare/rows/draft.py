"""What a row becomes before it is an example: its messages, and what is known about them."""

from __future__ import annotations

from dataclasses import dataclass

from finetune.records import Message, Task, UnusedKind


@dataclass(frozen=True, slots=True)
class Draft:
    """The result of applying a shape to a row; `unread` are the keys and values that it leaves out, by kind."""

    messages: tuple[Message, ...]
    task: Task
    label: str | None = None
    choices: tuple[str, ...] = ()
    context: str = ""  # the text that the question is about; other questions may share it
    second: str = ""  # the second of two texts that are labelled together
    unread: frozenset[tuple[UnusedKind, str]] = frozenset()
    tools: str | None = None  # a JSON list
    labels: tuple[str, ...] | None = None  # of a row that may have several
    rejected: tuple[Message, ...] = ()  # the conversation with the rejected answer, of a pair
