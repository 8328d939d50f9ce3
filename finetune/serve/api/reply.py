"""Answers of an engine on the event loop: waits for them, and cancels them when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from finetune.errors import SlmtuneError
from finetune.serve.api.facts import RequestFacts
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import Event, GenerationParams, Job, Piece, Result, TokenScore

Submit = Callable[[Callable[[Any], None]], Job[Any]]


class Submission:
    """Submitted jobs, whose events arrive on the event loop. Raises what a `submit` raises, with all jobs cancelled."""

    def __init__(self, *submits: Submit) -> None:
        self._events: asyncio.Queue[tuple[int, Any]] = asyncio.Queue()  # with the number of the job
        self._loop = asyncio.get_running_loop()
        self._jobs: list[Job[Any]] = []
        try:
            for number, submit in enumerate(submits):
                self._jobs.append(submit(partial(self._post, number)))
        except SlmtuneError:
            self._cancel()
            raise

    async def result(self, request: Request) -> Any:
        """The result of a single job that reports nothing before it.

        Raises:
            SlmtuneError: the engine failed or was closed.
        """
        async with self.cancelled_on_disconnect(request.receive):
            _, event = await self._events.get()
        if isinstance(event, SlmtuneError):
            raise event
        return event

    @asynccontextmanager
    async def cancelled_on_disconnect(self, receive: Receive) -> AsyncIterator[None]:
        """Cancel the jobs when the client disconnects, and in any case when the block ends."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            self._cancel()

    def _cancel(self) -> None:
        for job in self._jobs:
            job.cancel()

    def _post(self, number: int, event: object) -> None:
        """Called from the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, (number, event))


@dataclass
class Draft:
    """The part of an answer that has been generated."""

    text: str = ""
    tokens: list[TokenScore] = field(default_factory=list)


class Reply(Submission):
    """The answers to a submitted prompt, one for each of `params`. Raises what `Engine.submit` raises.

    `results` says how each answer ended, by its number.
    """

    def __init__(
        self,
        engine: Engine,
        prompt: Sequence[int],
        params: Sequence[GenerationParams],
        model: str,
        facts: RequestFacts,
    ) -> None:
        super().__init__(*(partial(engine.submit, prompt, one, model) for one in params))
        self.model = model
        self.count = len(params)
        self.results: dict[int, Result] = {}
        self._facts = facts
        self._open = set(range(self.count))

    async def events(self) -> AsyncIterator[tuple[int, Piece | Result]]:
        """Pieces of the answers as they are generated, each with the number of its answer, and how each answer ends.

        Raises:
            SlmtuneError: the engine failed or was closed.
        """
        while self._open:
            yield await self._next()

    async def drafts(self, request: Request) -> list[Draft]:
        """The whole answers; see `events`."""
        drafts = [Draft() for _ in range(self.count)]
        async with self.cancelled_on_disconnect(request.receive):
            async for number, event in self.events():
                if isinstance(event, Piece):
                    drafts[number].text += event.text
                    drafts[number].tokens += event.tokens
        return drafts

    async def settle(self) -> None:
        """Wait for the end of cancelled answers, whose tokens count as well."""
        while self._open:
            with suppress(SlmtuneError):
                await self._next()

    async def _next(self) -> tuple[int, Piece | Result]:
        event: Event
        number, event = await self._events.get()
        if isinstance(event, Piece):
            self._facts.add_text(number, event.text)
            return number, event
        self._open.discard(number)
        if isinstance(event, SlmtuneError):
            raise event
        self.results[number] = event
        self._facts.add_result(event.finish_reason, event.prompt_tokens, event.completion_tokens)
        return number, event


class EventStream(StreamingResponse):
    """Server-sent events for a reply, whose generation ends with the connection."""

    media_type = "text/event-stream"

    def __init__(self, reply: Reply, events: AsyncIterator[str]) -> None:
        # Proxies that buffer responses would turn the stream into one late block.
        super().__init__(events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        self._reply = reply

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events until they end or the client disconnects."""
        try:
            async with self._reply.cancelled_on_disconnect(receive):
                await super().__call__(scope, receive, send)
        finally:
            await self._reply.settle()
