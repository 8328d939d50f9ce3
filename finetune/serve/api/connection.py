"""The connections of a server: how many there are at once, and how long one may wait for a request."""

from __future__ import annotations

import asyncio
import http
import json

from uvicorn.protocols.http.h11_impl import H11Protocol

from finetune.serve.api.problem import ApiError

MAX_CONNECTIONS = 512  # half of the files that a process may have open by default
HEADER_BYTES = 16 << 10
HEADER_SECONDS = 10.0


class Connection(H11Protocol):
    """Speaks HTTP with a client, and ends a connection whose next request does not arrive in time.

    The time of a request that has arrived is limited elsewhere: its body by `read_body`, its answer by the engine.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a connection, or refuse it if there are too many."""
        if len(self.connections) >= MAX_CONNECTIONS:
            self.transport = transport
            self._refuse(ApiError(503, "There are too many connections. Try again later", code="unavailable"))
            return
        super().connection_made(transport)
        self._watch()

    def data_received(self, data: bytes) -> None:
        """Take in some bytes of a request."""
        if not self.transport.is_closing():
            super().data_received(data)
            self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._stop_timer()
        super().connection_lost(exc)

    def send_400_response(self, msg: str) -> None:
        """Refuse what is not HTTP, or has too long headers, in the form of the API."""
        message = f"The request is not valid HTTP, or has headers of more than {HEADER_BYTES} bytes"
        self._refuse(ApiError(400, message))

    def _watch(self) -> None:
        """Limit the time to the next request, unless one is being answered."""
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(HEADER_SECONDS, self._end_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _end_slow(self) -> None:
        if not self.transport.is_closing():
            self._refuse(ApiError(408, f"The request did not arrive within {HEADER_SECONDS:.0f} seconds"))

    def _refuse(self, error: ApiError) -> None:
        """End the connection, with an answer unless the client is in the middle of another one."""
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = json.dumps(error.body()).encode()
            head = (
                f"HTTP/1.1 {error.status} {http.HTTPStatus(error.status).phrase}\r\n"
                f"content-type: application/json\r\ncontent-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
        self.transport.close()
