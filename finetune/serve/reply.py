"""An answer of an engine on the event loop: waits for it, and cancels it when the client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from finetune.errors import SlmtuneError
from finetune.serve.classifier import Classification, Classifier, EncodedTexts
from finetune.serve.engine import Engine
from finetune.serve.facts import RequestFacts, facts_of
from finetune.serve.job import Event, GenerationParams, Job, Piece, Result


class Submission:
    """A submitted job, whose events arrive on the event loop. Raises what `submit` raises."""

    def __init__(self, submit: Callable[[Callable[[Any], None]], Job[Any]]) -> None:
        self._events: asyncio.Queue[Any] = asyncio.Queue()
        self._loop = asyncio.get_running_loop()
        self._job = submit(self._post)

    @asynccontextmanager
    async def cancelled_on_disconnect(self, receive: Receive) -> AsyncIterator[None]:
        """Cancel the job when the client disconnects, and in any case when the block ends."""

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            self._job.cancel()

        watching = asyncio.create_task(watch())
        try:
            yield
        finally:
            watching.cancel()
            self._job.cancel()

    def _post(self, event: object) -> None:
        """Called from the engine's thread."""
        with suppress(RuntimeError):  # the loop is closed: nobody is waiting any more
            self._loop.call_soon_threadsafe(self._events.put_nowait, event)


class ClassificationReply(Submission):
    """The labels or answers of a submitted request."""

    def __init__(self, classifier: Classifier, texts: EncodedTexts, model: str) -> None:
        super().__init__(lambda report: classifier.submit(texts, model, report))

    async def result(self, request: Request) -> Classification:
        """What the model says about each text.

        Raises:
            SlmtuneError: the engine failed or was closed.
        """
        async with self.cancelled_on_disconnect(request.receive):
            event: Classification | SlmtuneError = await self._events.get()
        if isinstance(event, SlmtuneError):
            raise event
        facts_of(request).add_result("" if event.rows else "cancelled", event.tokens, 0)
        return event


class Reply(Submission):
    """A submitted prompt. Raises the exceptions of `Engine.submit` before anything is sent."""

    def __init__(
        self, engine: Engine, prompt: Sequence[int], params: GenerationParams, model: str, facts: RequestFacts
    ) -> None:
        super().__init__(lambda report: engine.submit(prompt, params, model, report))
        self.model = model
        self._facts = facts
        self.result: Result | None = None
        self._failed = False

    async def pieces(self) -> AsyncIterator[Piece]:
        """The answer as it is generated; `result` is set afterwards.

        Raises:
            SlmtuneError: the engine failed or was closed.
        """
        while self.result is None:
            event: Event = await self._events.get()
            if isinstance(event, Piece):
                self._facts.add_text(event.text)
                yield event
            elif isinstance(event, Result):
                self.result = event
                self._facts.add_result(event.finish_reason, event.prompt_tokens, event.completion_tokens)
            else:
                self._failed = True
                raise event

    async def settle(self) -> None:
        """Wait for the end of a cancelled answer, whose tokens count as well."""
        if not self._failed:
            with suppress(SlmtuneError):
                async for _ in self.pieces():
                    pass

    async def text(self, request: Request) -> str:
        """The whole answer; see `pieces`."""
        async with self.cancelled_on_disconnect(request.receive):
            return "".join([piece.text async for piece in self.pieces()])


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
