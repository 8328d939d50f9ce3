"""Refused requests: every answer has the status and body that clients of the OpenAI API expect."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from finetune.models.load import LoadedModel
from finetune.recipe.options import ServeOptions
from finetune.serve.api.app import create_app
from finetune.serve.engine.engine import Engine

from .conftest import KEY, Running, hello, running

CHAT = "/v1/chat/completions"


def message(content: object) -> dict[str, object]:
    return {"role": "user", "content": content}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 0}, "n"),
        ({"n": 9}, "n"),
        ({"n": 2, "max_tokens": 300}, "n"),
        ({"tools": [{"type": "function"}]}, "tools"),
        ({"logprobs": 1}, "logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logit_bias": {"5": 1}}, "logit_bias"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"response_format": {"type": "json_schema"}}, "response_format"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
        ),
        ({"structured_outputs": {"regex": "a", "choice": ["b"]}}, "structured_outputs"),
        ({"structured_outputs": {"grammar": "a"}}, "structured_outputs.grammar"),
        ({"structured_outputs": {"choice": []}}, "structured_outputs.choice"),
        ({"structured_outputs": {"regex": "a" * 5000}}, "structured_outputs.regex"),
        ({"structured_outputs": {"regex": "a"}, "response_format": {"type": "text"}}, "structured_outputs"),
        ({"frequency_penalty": 0.5}, "frequency_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": -5}, "max_tokens"),
        ({"max_tokens": "5"}, "max_tokens"),
        ({"max_tokens": 10**30}, "max_tokens"),
        ({"temperature": 2.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": float("inf")}, "top_p"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"stop": [""]}, "stop[0]"),
        ({"seed": 2**70}, "seed"),
        ({"stream": "yes"}, "stream"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"chat_template": "{{ 1 }}"}, "chat_template"),
        ({"temprature": 0}, "temprature"),
        ({"messages": []}, "messages"),
        ({"messages": "hello"}, "messages"),
        ({"messages": [message("x")] * 257}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].role"),
        ({"messages": [message([{"type": "image_url"}])]}, "messages[0].content"),
        ({"messages": [message(None)]}, "messages[0].content"),
        ({"messages": [{"role": "assistant", "content": ""}]}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [message("x") | {"tool_calls": [{}]}]}, "messages[0]"),
        ({"model": 5}, "model"),
    ],
)
def test_a_field_that_cannot_be_served_is_named(server: Running, fields: dict[str, Any], param: str) -> None:
    answer = server.ask("POST", CHAT, hello(**fields))
    assert answer.status == 400
    assert (answer.error["param"], answer.error["type"]) == (param, "invalid_request_error")
    assert param in answer.error["message"] or "conversation" in answer.error["message"]


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b'"text"', b"null", b"\xff\xfe{}", b'{"model": "\\ud800"}', b'{"a":' * 50_000, b"\x00"],
    ids=["empty", "cut", "list", "string", "null", "no-utf8", "half-surrogate", "deep", "zero"],
)
def test_a_body_that_is_not_a_json_object_is_refused(server: Running, body: bytes) -> None:
    answer = server.ask("POST", CHAT, body)
    assert (answer.status, answer.error["param"]) == (400, None)


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_bodies_of_type_json_are_read(server: Running, kind: str) -> None:
    """A web page may send the other types to any server without asking it first."""
    assert server.ask("POST", CHAT, hello(), {"Content-Type": kind}).error["message"].startswith("Content-Type")


def test_errors_never_repeat_the_text(server: Running) -> None:
    secret = "the diagnosis"
    answer = server.ask("POST", CHAT, hello(messages=[{"role": secret, "content": secret}], temperature=secret))
    assert answer.status == 400
    assert secret not in answer.text


def test_a_large_body_is_refused_for_its_size(server: Running) -> None:
    answer = server.ask("POST", CHAT, hello(messages=[message("x" * (2 << 20))]))
    assert (answer.status, answer.error["code"]) == (413, "body_too_large")


def test_a_body_just_under_the_limit_is_read(server: Running) -> None:
    """It is refused for its tokens, so it was read."""
    answer = server.ask("POST", CHAT, hello(messages=[message("x" * ((1 << 20) - 200))]))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")


@pytest.mark.parametrize(("path", "fields"), [(CHAT, {}), ("/v1/completions", {"prompt": "hello", "messages": None})])
def test_more_tokens_than_the_context_holds_are_refused(server: Running, path: str, fields: dict[str, Any]) -> None:
    answer = server.ask("POST", path, hello(max_tokens=600, **fields))
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert answer.error["param"] == ("prompt" if "prompt" in fields else "messages")
    assert "600" in answer.error["message"]
    assert "512" in answer.error["message"]


@pytest.mark.parametrize("prompt", ["", [], ["a", "b"], [1, 2], None])
def test_a_prompt_is_one_text(server: Running, prompt: object) -> None:
    answer = server.ask("POST", "/v1/completions", {"model": "tiny", "prompt": prompt})
    assert (answer.status, answer.error["param"]) == (400, "prompt")


def test_messages_that_the_template_refuses_are_a_client_error(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    loaded.tokenizer.chat_template = (
        "{% for m in messages %}"
        "{% if m.role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ m.content }}{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}"
    )
    with running(make_engine()) as server:
        answer = server.ask("POST", CHAT, hello(messages=[{"role": "system", "content": "x"}]))
    assert answer.status == 400
    assert "System role not supported" in answer.error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("POST", "/", 405),
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/models/nobody", 404),
        ("GET", "/health/", 404),
        ("GET", "/docs", 404),
        ("GET", "/redoc", 404),
        ("GET", CHAT, 405),
        ("DELETE", "/v1/models", 405),
        ("OPTIONS", CHAT, 405),
        ("POST", "/health", 405),
    ],
)
def test_unknown_paths_and_methods_have_the_same_body(server: Running, method: str, path: str, status: int) -> None:
    answer = server.ask(method, path)
    assert answer.status == status
    assert answer.error["message"]


@pytest.mark.parametrize("host", ["evil.example", "evil.example:80", "127.0.0.1.evil.example", "", "[::2]"])
def test_without_a_key_only_this_machine_is_answered(server: Running, host: str) -> None:
    """A web page can point its own name at 127.0.0.1; its requests still carry that name."""
    answer = server.ask("GET", "/v1/models", headers={"Host": host})
    assert (answer.status, answer.error["code"]) == (403, "host_not_allowed")


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:1", "127.0.0.1:99", "[::1]:8000", "[::1]"])
def test_this_machine_has_several_names(server: Running, host: str) -> None:
    assert server.ask("GET", "/v1/models", headers={"Host": host}).status == 200


def test_every_route_but_the_page_and_the_probes_needs_a_key(guarded: Running, engine: Engine) -> None:
    routes: list[Any] = create_app(engine, ServeOptions()).routes
    endpoints = {(method, route.path.replace("{name:path}", "tiny")) for route in routes for method in route.methods}
    assert ("POST", CHAT) in endpoints
    open_ones = {("GET", "/"), ("GET", "/health"), ("GET", "/ready")}
    assert open_ones < endpoints
    for method, path in endpoints - open_ones:
        assert guarded.ask(method, path).status == 401, path
    for method, path in open_ones:
        assert guarded.ask(method, path).status == 200, path


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nothing"), ("OPTIONS", CHAT), ("GET", "/health/"), ("GET", "//health"), ("GET", "/health/../v1/models"),
     ("GET", "//"), ("GET", "/."), ("GET", "/v1/models?x=/health"), ("GET", "/%68ealth/x"), ("GET", "/v1/models/")],
)  # fmt: skip
def test_paths_near_the_open_one_need_the_key(guarded: Running, method: str, path: str) -> None:
    answer = guarded.ask(method, path, headers={"Host": "x/health"})
    assert answer.status == 401
    assert (answer.error["type"], answer.error["code"]) == ("authentication_error", "invalid_api_key")
    assert answer.headers["www-authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY}x", KEY, f"Bearer {KEY[:-1]}", "Bearer é"]
)
def test_anything_but_the_key_is_refused(guarded: Running, value: str) -> None:
    assert guarded.ask("GET", "/v1/models", headers={"Authorization": value}).status == 401


def test_the_key_gives_access(guarded: Running) -> None:
    answer = guarded.ask("POST", CHAT, hello(), {"Authorization": f"bearer {KEY}", "Host": "any.example"})
    assert answer.status == 200
