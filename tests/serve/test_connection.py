"""Connections that never ask anything, ask slowly or do not speak HTTP, and answers that take too long."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from finetune.serve import body, connection
from finetune.serve.engine import Engine

from .conftest import Running, hello, running

CHAT = "/v1/chat/completions"
HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"


def connect(server: Running) -> socket.socket:
    address = urlsplit(server.url)
    assert address.hostname is not None
    return socket.create_connection((address.hostname, address.port or 0), timeout=20)


def read_all(sock: socket.socket) -> bytes:
    parts = []
    while part := sock.recv(65536):
        parts.append(part)
    return b"".join(parts)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/chat", HEAD], ids=["nothing", "line", "headers"])
def test_a_request_that_does_not_begin_in_time_is_cut_off(
    engine: Engine, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with running(engine) as server, connect(server) as sock:
        sock.sendall(sent)
        assert read_all(sock) == b""
        assert server.ask("GET", "/health").status == 200


def test_a_second_request_on_a_connection_is_cut_off_as_well(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.2)
    with running(engine) as server, connect(server) as sock:
        sock.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\nGET /hea")
        assert read_all(sock).count(b"HTTP/1.1 200") == 1


def test_a_body_that_does_not_arrive_in_time_is_refused(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    with running(engine) as server, connect(server) as sock:
        sock.sendall(HEAD + b"Content-Length: 100\r\n\r\n{")
        assert sock.recv(65536).startswith(b"HTTP/1.1 408")


@pytest.mark.parametrize("sent", [b"\x16\x03\x01\x02\x00\r\n\r\n", b"nonsense\r\n\r\n"])
def test_what_is_not_http_is_refused_in_the_form_of_the_api(engine: Engine, sent: bytes) -> None:
    with running(engine) as server, connect(server) as sock:
        sock.sendall(sent)
        head, _, content = read_all(sock).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400")
    assert json.loads(content)["error"]["type"] == "invalid_request_error"


def test_an_answer_may_take_longer_than_the_headers(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEAD_SECONDS", 0.05)
    with running(engine) as server:
        assert server.ask("POST", CHAT, hello(max_tokens=100)).status == 200


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends_with_a_504(engine: Engine, stream: bool) -> None:
    with running(engine, deadline=0.1) as server:
        answer = server.ask("POST", CHAT, hello(stream=stream, max_tokens=480))
    if stream:
        last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["code"] == "deadline_exceeded"
    else:
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
