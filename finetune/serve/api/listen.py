"""The uvicorn server on an address, and its shutdown."""

from __future__ import annotations

import asyncio
import errno
import math
import socket
import time
from collections.abc import Callable, Sequence
from types import FrameType

import uvicorn

from finetune.errors import EngineStoppedError, PortInUseError
from finetune.recipe.options import ServeOptions
from finetune.serve.api.app import create_app
from finetune.serve.api.connection import HEADER_BYTES, Connection
from finetune.serve.api.keys import ApiKey
from finetune.serve.api.metrics import Metrics
from finetune.serve.engine.kinds import AnyEngine

DEAD_SECONDS = (
    3.0  # from the death of the engine to the end of the server: /health and the last requests say what happened
)
LAST_SECONDS = 1.0  # for the errors of requests that a second signal ends


def run(
    engine: AnyEngine,
    server_socket: socket.socket,
    options: ServeOptions,
    keys: Sequence[ApiKey],
    on_ready: Callable[[], None],
) -> int:
    """Serve until SIGINT or SIGTERM, and return the signal's number.

    Raises:
        PortInUseError: another program has started listening on the address since it was bound.
        EngineStoppedError: the engine died.
    """
    server = Server(engine, options, keys, on_ready)
    port = server_socket.getsockname()[1]
    try:
        server.run(sockets=[server_socket])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortInUseError(options.host, port) from None
    finally:
        server_socket.close()
    if not server.stopped_by:
        raise EngineStoppedError("The engine has died, so the server has ended. Its log says why. Start it again")
    return server.stopped_by


class Server(uvicorn.Server):
    """Reports when it is listening, shuts down gracefully unless a second signal arrives, and ends with its engine."""

    def __init__(
        self, engine: AnyEngine, options: ServeOptions, keys: Sequence[ApiKey], on_ready: Callable[[], None]
    ) -> None:
        app = create_app(engine, options, keys)
        config = uvicorn.Config(
            app,
            ssl_certfile=options.ssl_certfile,
            ssl_keyfile=options.ssl_keyfile,
            http=Connection,
            h11_max_incomplete_event_size=HEADER_BYTES,
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # the routes report failures, without tracebacks that could contain prompts
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=math.ceil(options.drain_seconds)
            + 5,  # only for requests that do not wait for the engine
        )
        super().__init__(config)
        self.stopped_by = 0
        self._engine = engine
        self._drain_seconds = options.drain_seconds
        self._dead_since: float | None = None
        self._on_ready = on_ready
        self._metrics: Metrics = app.state.metrics
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Remember the signal; the base class would raise it again at the end."""
        if self.stopped_by and self._loop is not None:
            self._loop.call_soon_threadsafe(self._abort)  # deferred: the signal may interrupt the holder of a lock
        self.stopped_by = self.stopped_by or sig
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start listening, then report it."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._metrics.note_ready()
        self._on_ready()

    async def on_tick(self, counter: int) -> bool:
        """Whether to shut down; called ten times per second."""
        if self._dead_since is None:
            self._dead_since = None if self._engine.alive else time.monotonic()
        elif time.monotonic() - self._dead_since > DEAD_SECONDS:
            return True
        return await super().on_tick(counter)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for running requests, and end those that take too long."""
        asyncio.get_running_loop().call_later(self._drain_seconds, self._engine.close)
        await super().shutdown(sockets)

    def _abort(self) -> None:
        """End all requests with an error, and the server even if clients do not read theirs."""
        self._engine.close()
        asyncio.get_running_loop().call_later(LAST_SECONDS, self._leave)

    def _leave(self) -> None:
        self.force_exit = True
        for connection in list(self.server_state.connections):
            connection.transport.abort()
