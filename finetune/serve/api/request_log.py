"""The outermost layer of the server: gives each request an id and one line in the log, and answers when a route fails."""

from __future__ import annotations

import json
import logging
import re
import uuid
from collections.abc import Callable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from finetune.serve.api.facts import KEY, RequestFacts
from finetune.serve.api.problem import ApiError

ID = re.compile(r"[A-Za-z0-9._-]{1,128}")  # of a client: fits in a header and a log line
MAX_PATH = 200  # characters that are logged
PROBES = frozenset(
    {"/health", "/ready", "/metrics"}
)  # asked for every few seconds by other programs: logged only if they fail
CLIENT_LEFT = 499  # the status that nginx logs

log = logging.getLogger(__name__)


class RequestLog:
    """Logs and counts every request when it has been answered; logs no text unless `with_text` is set."""

    def __init__(self, app: ASGIApp, *, with_text: bool, count: Callable[[RequestFacts], None]) -> None:
        self._app, self._with_text, self._count = app, with_text, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        scope[KEY] = facts = self._open(scope)

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                facts.status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = facts.id
            await send(message)

        try:
            await self._run(scope, receive, watch, facts)
        finally:
            facts.route = getattr(scope.get("route"), "path", "")
            self._count(facts)
            _write(facts)

    def _open(self, scope: Scope) -> RequestFacts:
        name = Headers(scope=scope).get("x-request-id", "")
        path = scope.get("raw_path") or scope["path"].encode()
        return RequestFacts(
            id=name if ID.fullmatch(name) else f"req_{uuid.uuid4().hex}",
            method=scope["method"],
            path=path[:MAX_PATH].decode("ascii", "backslashreplace"),
            with_text=self._with_text,
        )

    async def _run(self, scope: Scope, receive: Receive, send: Send, facts: RequestFacts) -> None:
        """Run the routes; an unexpected error becomes a 500 response that does not reveal the cause."""
        try:
            await self._app(scope, receive, send)
        except ClientDisconnect:
            facts.status = facts.status or CLIENT_LEFT
        except Exception as error:
            log.error("%s %s failed: %s, %s.", facts.method, facts.path, type(error).__name__, facts.id)
            if not facts.status:
                await ApiError(500, "The server failed to answer").response()(scope, receive, send)


def _write(facts: RequestFacts) -> None:
    level = logging.DEBUG if facts.route in PROBES and facts.status == 200 else logging.INFO
    fields: dict[str, Any] = {
        "request_id": facts.id,
        "method": facts.method,
        "path": facts.path,
        "status": facts.status,
        "seconds": round(facts.seconds, 3),
    }
    if facts.client:
        fields["client"] = facts.client
    if facts.model:
        fields |= {"model": facts.model, "prompt_tokens": facts.prompt_tokens}
        fields |= {"completion_tokens": facts.completion_tokens, "finish_reason": facts.finish_reason}
    if facts.with_text:
        fields |= {"prompt": facts.prompt, "answers": facts.answers}
    log.log(level, "%s", _describe(facts), extra={"fields": fields})


def _describe(facts: RequestFacts) -> str:
    parts = [f"{facts.method} {facts.path} {facts.status}"]
    if facts.model:
        parts += [facts.model, f"{facts.prompt_tokens} prompt tokens", f"{facts.completion_tokens} completion tokens"]
        parts += [facts.finish_reason] if facts.finish_reason else []
    parts += [f"{facts.seconds:.1f} s", *([facts.client] if facts.client else []), facts.id]
    if facts.with_text:
        parts += [f"{name} {json.dumps(text, ensure_ascii=False)}" for name, text in _texts(facts).items()]
    return ", ".join(parts) + "."


def _texts(facts: RequestFacts) -> dict[str, Any]:
    return {name: text for name, text in (("prompt", facts.prompt), ("answers", facts.answers)) if text}
