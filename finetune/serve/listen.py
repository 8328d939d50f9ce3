"""The address, the uvicorn server on it, and how it ends."""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from finetune.errors import InputError, PortInUseError
from finetune.recipe.options import ServeOptions
from finetune.serve.app import create_app
from finetune.serve.engine import Engine

GRACE_SECONDS = 5  # that requests get to finish after a signal


def bind(host: str, port: int, *, local_only: bool) -> socket.socket:
    """Take the address, without listening yet.

    Raises:
        PortInUseError: another program has it.
        InputError: there is no such address, it may not be used, or others could reach it and `local_only` is set.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (socket.gaierror, UnicodeError):
        raise InputError(
            f"There is no host {host!r}. Give --host an address of this machine, such as {ServeOptions.host}"
        ) from None
    if local_only and not ipaddress.ip_address(str(address[0]).partition("%")[0]).is_loopback:
        raise InputError(
            f"{host} can be reached from other machines, which needs an API key. Give --api-key-file FILE, or "
            f"--host {ServeOptions.host}"
        )
    taken = socket.socket(family, socket.SOCK_STREAM)
    taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restart need not wait for old connections
    try:
        taken.bind(address)
    except OSError as error:
        taken.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(host, port) from None
        raise InputError(
            f"Cannot listen on {host} port {port}: {error.strerror}. Choose another --host or --port"
        ) from None
    return taken


def url_of(host: str, taken: socket.socket) -> str:
    """Where clients find the server."""
    port = taken.getsockname()[1]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(engine: Engine, taken: socket.socket, *, host: str, api_key: str | None, on_ready: Callable[[], None]) -> int:
    """Serve until SIGINT or SIGTERM, and return the signal's number.

    Raises:
        PortInUseError: another program began to listen on the address since it was bound.
    """
    server = Server(engine, host=host, api_key=api_key, on_ready=on_ready)
    port = taken.getsockname()[1]
    try:
        server.run(sockets=[taken])
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
        raise PortInUseError(host, port) from None
    finally:
        taken.close()
    return server.stopped_by


class Server(uvicorn.Server):
    """Says when it listens, and ends in order: requests get seconds to finish, a second signal ends them at once."""

    def __init__(self, engine: Engine, *, host: str, api_key: str | None, on_ready: Callable[[], None]) -> None:
        config = uvicorn.Config(
            create_app(engine, api_key=api_key, host=host),
            http="h11",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",  # the routes report their own failures, without tracebacks that could hold prompts
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=GRACE_SECONDS + 5,  # only for what does not wait for the engine
        )
        super().__init__(config)
        self.stopped_by = 0
        self._engine = engine
        self._on_ready = on_ready
        self._loop: asyncio.AbstractEventLoop | None = None

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Note the signal; the base class would raise it again at the end."""
        if self.stopped_by and self._loop is not None:
            self._loop.call_soon_threadsafe(self._engine.close)  # not here: the signal may interrupt a lock's holder
        self.stopped_by = self.stopped_by or sig
        self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, then say so."""
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._on_ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop listening, wait for the requests, and end those that take too long."""
        asyncio.get_running_loop().call_later(GRACE_SECONDS, self._engine.close)
        await super().shutdown(sockets)
