"""What is known of a request: gathered on its way through the server, for its log line and the metrics."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

KEY = "slmtune.facts"  # in the ASGI scope


@dataclass(slots=True)
class RequestFacts:
    """The facts of one request. Times are in seconds; `prompt` and `answers` stay empty unless `with_text` is set."""

    id: str
    method: str
    path: str
    with_text: bool = False
    started: float = field(default_factory=time.monotonic)
    client: str = ""  # the name of its key
    route: str = ""  # the template of the path; empty if there is no such route
    model: str = ""  # only a model that is served
    status: int = 0
    finish_reason: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    first_text: float | None = None
    prompt: Any = None
    answers: list[str] = field(default_factory=list)

    @property
    def seconds(self) -> float:
        """How long the request has taken so far."""
        return time.monotonic() - self.started

    def add_prompt(self, prompt: Any) -> None:
        """Keep the prompt for the log, if it may contain text."""
        if self.with_text:
            self.prompt = prompt

    def add_text(self, number: int, text: str) -> None:
        """Note when the first answer began, and keep the text of answer `number` for the log, if that may contain text."""
        if self.first_text is None:
            self.first_text = self.seconds
        if self.with_text:
            self.answers += [""] * (number + 1 - len(self.answers))
            self.answers[number] += text

    def summarise(self, prompt_tokens: int, answers: list[str]) -> None:
        """Replace what was added for the parts of a request by what its sender sees."""
        self.prompt_tokens, self.completion_tokens = prompt_tokens, 0
        self.answers = answers if self.with_text else []

    def add_result(self, finish_reason: str, prompt_tokens: int, completion_tokens: int) -> None:
        """Add the end and the tokens of one answer to the prompt."""
        self.finish_reason = finish_reason
        self.prompt_tokens = prompt_tokens
        self.completion_tokens += completion_tokens


def facts_of(scope: Mapping[str, Any]) -> RequestFacts:
    """The facts of the request to which an ASGI scope, or a `Request`, belongs."""
    facts: RequestFacts = scope[KEY]
    return facts
