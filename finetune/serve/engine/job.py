"""A request to the engine, from the queue to its end, and the events that its caller receives."""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from queue import SimpleQueue
from typing import Any, Generic, Literal, Protocol, Self, TypeVar

import torch

from finetune.artifacts import Artifact
from finetune.errors import SlmtuneError
from finetune.scoring.label_tasks import LabelTask, label_tasks_of

MODEL_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/@-]{0,127}")  # the value of `model` in requests, also used in paths


class Constraint(Protocol):
    """Which tokens an answer may consist of, such as a grammar; it follows the answer token by token."""

    @property
    def complete(self) -> bool:
        """Whether the answer is whole, so that nothing may follow."""
        ...

    def allowed(self) -> torch.Tensor | None:
        """The tokens that may come next, as a boolean tensor (ids of the tokenizer,); None for any token."""
        ...

    def accept(self, token: int) -> None:
        """Take note of a generated token."""
        ...


@dataclass(frozen=True, slots=True)
class GenerationParams:
    """How to sample. `temperature` 0 is greedy; `max_tokens` None is `ANSWER_TOKENS`, or the rest of the context.

    `logprobs` asks for the log-probability of each token and of that many alternatives. `deadline` is in seconds from the
    submission; an answer that is not complete by then ends with an error. Requests of one `client` wait for each other.
    """

    max_tokens: int | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    logprobs: int | None = None
    constraint: Constraint | None = None
    deadline: float | None = None
    client: str = ""


@dataclass(frozen=True, slots=True)
class TokenScore:
    """A generated token and its natural log-probability; `top` are the likeliest tokens: (id, text, log-probability)."""

    id: int
    text: str
    logprob: float
    top: tuple[tuple[int, str, float], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """The next part of an answer. `tokens` are those that it consists of, if the request asked for log-probabilities."""

    text: str
    tokens: tuple[TokenScore, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """How an answer ended and what it cost. `completion_tokens` excludes the token that ends a turn.

    `end_logprob` is the log-probability of that token, if the request asked for log-probabilities. `cached_tokens` are those
    of the prompt that were not computed again, because an earlier prompt began with them.
    """

    finish_reason: Literal["stop", "length", "cancelled"]
    prompt_tokens: int
    completion_tokens: int
    end_logprob: float | None = None
    cached_tokens: int = field(default=0, compare=False)  # of how it was computed, not of the answer


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A model that requests may name: the base model, or an adapter on it, by its name inside the engine.

    `domain` is that of the corpus on which it was trained, and `label_tasks` are the questions with fixed answers in there.
    """

    id: str
    adapter: str | None = None
    parent: str | None = None
    domain: str | None = None
    label_tasks: tuple[LabelTask, ...] = ()

    @classmethod
    def of(cls, artifact: Artifact, id: str, adapter: str | None = None, parent: str | None = None) -> Self:
        """An adapter or a merged model, with what its manifest says of its training."""
        domain = artifact.manifest["parents"].get("corpus", {}).get("domain")
        return cls(id, adapter, parent, domain, label_tasks_of(artifact.manifest))


Event = Piece | Result | SlmtuneError
R = TypeVar("R")  # the result of a job


class Job(Generic[R]):
    """One request, from the queue to its end; its methods may be called from any thread.

    `listener` receives every event, on the thread that reports it: perhaps pieces of an answer, then one result or one error.
    `dequeue` removes the job from the queue. `when_cancelled` is the result of a job that is cancelled before it runs.
    """

    def __init__(
        self, listener: Callable[[Piece | R | SlmtuneError], None], dequeue: Callable[[Any], None], when_cancelled: R
    ) -> None:
        self.cancelled = threading.Event()
        self.when_cancelled = when_cancelled
        self._listener = listener
        self._dequeue = dequeue
        self._reporting = threading.Lock()
        self._ended = False

    def report(self, event: Piece | R | SlmtuneError) -> None:
        """Pass an event on, but nothing after a result or an error."""
        with self._reporting:
            if not self._ended:
                self._ended = not isinstance(event, Piece)
                self._listener(event)

    def cancel(self) -> None:
        """End the job: at once if it is waiting, after the current step if it is running."""
        self.cancelled.set()
        self._dequeue(self)


class GenerationJob(Job[Result]):
    """A prompt to continue."""

    def __init__(
        self,
        prompt: tuple[int, ...],
        params: GenerationParams,
        max_tokens: int,
        adapter: str | None,
        listener: Callable[[Event], None],
        dequeue: Callable[[Any], None],
    ) -> None:
        super().__init__(listener, dequeue, Result("cancelled", len(prompt), 0))
        self.prompt = prompt
        self.params = params
        self.max_tokens = max_tokens
        self.adapter = adapter
        self._deadline = None if params.deadline is None else time.monotonic() + params.deadline

    @property
    def size(self) -> int:
        """The number of tokens that it may come to have."""
        return len(self.prompt) + self.max_tokens

    def is_overdue(self, now: float) -> bool:
        """Whether its deadline has passed; `now` is that of `time.monotonic`."""
        return self._deadline is not None and now > self._deadline


class Generation:
    """An answer in progress: iterate over its pieces, then read `result`. Leaving the loop early cancels it."""

    def __init__(self, job: GenerationJob, events: SimpleQueue[Event]) -> None:
        self._job = job
        self._events = events
        self.result: Result | None = None

    def __iter__(self) -> Iterator[str]:
        """The text of the answer, piece by piece.

        Raises:
            SlmtuneError: the engine failed or was closed.
        """
        try:
            while self.result is None:
                event = self._events.get()
                if isinstance(event, Piece):
                    yield event.text
                elif isinstance(event, Result):
                    self.result = event
                else:
                    raise event
        finally:
            self._job.cancel()

    def cancel(self) -> None:
        """Stop generating; the iteration ends after the text generated so far."""
        self._job.cancel()
