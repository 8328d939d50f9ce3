"""Every answer has the id of its request, and every request one line in the log, which has no text unless asked for."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest
from starlette.types import Message, Receive, Scope, Send

from finetune.cli.console import JsonFormatter
from finetune.serve.api.request_log import RequestLog
from finetune.serve.engine.engine import Engine

from .conftest import Running, hello, running

CHAT = "/v1/chat/completions"
SECRET = "hypertension"


def lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    """The log as `--log-format json` prints it, requests only."""
    records = [record for record in caplog.records if record.name == "finetune.serve.api.request_log"]
    return [json.loads(JsonFormatter().format(record)) for record in records]


@pytest.mark.parametrize(
    ("method", "path", "body", "headers", "status"),
    [
        ("GET", "/v1/models", None, {}, 200),
        ("POST", CHAT, hello(stream=True), {}, 200),
        ("POST", CHAT, hello(temperature=9), {}, 400),
        ("GET", "/v1/models", None, {"Host": "evil.example"}, 403),
        ("GET", "/nothing", None, {}, 404),
        ("GET", CHAT, None, {}, 405),
        ("POST", CHAT, b"x" * (2 << 20), {}, 413),
    ],
)
def test_every_answer_has_an_id(
    server: Running, method: str, path: str, body: object, headers: dict[str, str], status: int
) -> None:
    answers = [server.ask(method, path, body, headers) for _ in range(2)]
    assert [answer.status for answer in answers] == [status] * 2
    ids = {answer.headers["x-request-id"] for answer in answers}
    assert len(ids) == 2
    assert all(name.startswith("req_") for name in ids)


def test_an_id_of_the_client_is_kept_even_without_a_key(guarded: Running) -> None:
    answer = guarded.ask("GET", "/v1/models", headers={"X-Request-Id": "batch-7.row_3"})
    assert (answer.status, answer.headers["x-request-id"]) == (401, "batch-7.row_3")


@pytest.mark.parametrize("name", ["", "two words", "a" * 129, "a;b", "é", "<script>"])
def test_an_id_that_could_break_a_log_is_replaced(server: Running, name: str) -> None:
    answer = server.ask("GET", "/v1/models", headers={"X-Request-Id": name})
    assert answer.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(("method", "path", "allowed"), [("GET", CHAT, "POST"), ("DELETE", "/v1/models", "GET")])
def test_a_refused_method_names_the_allowed_ones(server: Running, method: str, path: str, allowed: str) -> None:
    answer = server.ask(method, path)
    assert (answer.status, answer.headers["allow"]) == (405, allowed)


def test_log_has_a_line_for_each_request_without_its_text(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    request = hello(messages=[{"role": "user", "content": SECRET}], temperature=0)
    with running(engine) as server:
        said = server.ask("POST", CHAT, request).data
        server.ask("POST", CHAT, request | {"stream": True}, {"X-Request-Id": "second"})
        server.ask("GET", f"/v1/models/{SECRET[:4]}?key={SECRET}")
        server.ask("GET", "/health")
    whole, streamed, missing = lines(caplog)
    assert (whole["method"], whole["path"], whole["status"], whole["model"]) == ("POST", CHAT, 200, "tiny")
    assert {name: whole[name] for name in ("prompt_tokens", "completion_tokens")}.items() <= said["usage"].items()
    assert whole["finish_reason"] == said["choices"][0]["finish_reason"]
    assert whole["seconds"] >= 0
    assert (streamed["request_id"], streamed["completion_tokens"]) == ("second", whole["completion_tokens"])
    assert (missing["status"], "model" in missing) == (404, False)
    assert SECRET not in caplog.text + json.dumps(lines(caplog))
    assert said["choices"][0]["message"]["content"] not in caplog.text
    assert "4 completion tokens" in whole["message"]


def test_text_is_logged_only_on_request(engine: Engine, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    messages = [{"role": "user", "content": SECRET}]
    with running(engine, log_prompts=True) as server:
        said = server.ask("POST", CHAT, hello(messages=messages, temperature=0)).data["choices"][0]
        server.ask("POST", "/v1/completions", {"model": "tiny", "prompt": SECRET, "max_tokens": 2})
    chat, completion = lines(caplog)
    assert (chat["prompt"], chat["answers"]) == (messages, [said["message"]["content"]])
    assert completion["prompt"] == SECRET
    assert SECRET in chat["message"]


def test_an_unknown_model_is_not_logged(server: Running, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    assert server.ask("POST", CHAT, hello(model=SECRET)).status == 404
    assert SECRET not in caplog.text + json.dumps(lines(caplog))


def test_a_route_that_fails_is_a_500_without_the_cause(caplog: pytest.LogCaptureFixture) -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise RuntimeError(SECRET)

    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    scope = {"type": "http", "method": "GET", "path": "/v1/models", "headers": [(b"x-request-id", b"one")]}
    caplog.set_level(logging.DEBUG)
    asyncio.run(RequestLog(fail, with_text=False, count=lambda facts: None)(scope, receive, send))
    assert sent[0]["status"] == 500
    assert (b"x-request-id", b"one") in sent[0]["headers"]
    assert json.loads(sent[1]["body"])["error"]["type"] == "server_error"
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text + str(sent)
