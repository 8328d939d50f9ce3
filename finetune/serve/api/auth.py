"""Access control: all but three routes need a key and count towards its limits; without keys, only this machine has access."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from finetune.serve.api.facts import facts_of
from finetune.serve.api.keys import KeyRing
from finetune.serve.api.limits import Limits
from finetune.serve.api.problem import ApiError

# Those for load balancers reveal nothing but up or down; the page at "/" asks its reader for the key.
OPEN_PATHS = frozenset({"/", "/health", "/ready"})
LOAD_PATH, UNLOAD_PATH = "/v1/load_lora_adapter", "/v1/unload_lora_adapter"  # for administrators only
LOCAL_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})


class Gate:
    """Passes a request on to the routes or refuses it; `keys` None is a server without keys.

    It runs before routing and denies by default, so a new route is closed unless it is listed here. It checks the path
    that the server uses for routing; headers such as Host cannot change it.
    """

    def __init__(self, app: ASGIApp, *, keys: KeyRing | None, admin_keys: KeyRing, host: str, limits: Limits) -> None:
        self._app, self._keys, self._admin_keys, self._limits = app, keys, admin_keys, limits
        self._names = LOCAL_NAMES | {host.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http" or scope["path"] in OPEN_PATHS:
            await self._app(scope, receive, send)
            return
        try:
            client = self._client_of(scope)
            facts_of(scope).client = client
            with self._limits.admit(client):
                await self._app(scope, receive, send)
        except ApiError as error:  # of this gate: the routes answer their own
            await error.response()(scope, receive, send)

    def _client_of(self, scope: Scope) -> str:
        """The name of the key that a request has sent, or an empty name without keys.

        Raises:
            ApiError: 401 no valid key; 403 there are no keys, and the request comes from a web page elsewhere.
        """
        headers = dict(scope["headers"])  # ASGI lower-cases the names
        keys = self._admin_keys if scope["path"] in (LOAD_PATH, UNLOAD_PATH) else self._keys
        if keys is None:
            # A web page can point its own domain at this machine and then read the answers of a server without a key.
            if _host_name(headers.get(b"host", b"")) not in self._names:
                message = "Without an API key, the Host must be this machine. Start the server with --api-key-file"
                raise ApiError(403, message, code="host_not_allowed")
            return ""
        scheme, _, key = headers.get(b"authorization", b"").partition(b" ")
        name = keys.name_of(key.strip()) if scheme.lower() == b"bearer" else None
        if name is None:
            message = "A valid API key is needed: Authorization: Bearer KEY"
            raise ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})
        return name


def _host_name(host: bytes) -> str:
    """The name in a Host header, without its port."""
    name = host.decode("latin-1").lower()
    return name.rpartition(":")[0] if not name.endswith("]") and ":" in name else name
