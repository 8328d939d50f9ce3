"""Access control: every route but two needs the API key; without a key, only this machine has access."""

from __future__ import annotations

import hmac

from starlette.types import ASGIApp, Receive, Scope, Send

from finetune.serve.problem import ApiError

# "/health" is for load balancers and reveals nothing but up or down; the page at "/" asks its reader for the key.
OPEN_PATHS = frozenset({"/", "/health"})
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """Passes a request on to the routes or refuses it.

    It runs before routing and denies by default, so a new route is closed unless it is listed here. It checks the path
    that the server uses for routing; headers such as Host cannot change it.
    """

    def __init__(self, app: ASGIApp, api_key: str | None, host: str) -> None:
        self._app = app
        self._key = api_key.encode() if api_key is not None else None
        self._names = LOCAL_NAMES | {host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal = self._refuse(scope)
        if refusal is not None:
            await refusal.response()(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _refuse(self, scope: Scope) -> ApiError | None:
        if scope["path"] in OPEN_PATHS:
            return None
        headers = dict(scope["headers"])  # ASGI lower-cases the names
        if self._key is None:
            # A web page can point its own domain at this machine and then read the answers of a server without a key.
            if _host_name(headers.get(b"host", b"")) not in self._names:
                message = "Without an API key, the Host must be this machine. Start the server with --api-key-file"
                return ApiError(403, message, code="host_not_allowed")
            return None
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        if scheme.lower() == b"bearer" and hmac.compare_digest(key.strip(), self._key):
            return None
        message = "A valid API key is needed: Authorization: Bearer KEY"
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def _host_name(host: bytes) -> str:
    """The name in a Host header, without its port."""
    name = host.decode("latin-1").lower()
    return name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
