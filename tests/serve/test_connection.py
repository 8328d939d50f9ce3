"""Clients that hold connections without asking for anything, ask for it slowly, or do not speak HTTP."""

from __future__ import annotations

import json
import select
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import pytest

from finetune.models.load import LoadedModel
from finetune.serve.api import body, connection
from finetune.serve.engine.engine import Engine

from .conftest import Brake, Running, hello, running

PATIENCE = 30.0  # seconds
WHOLE = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
ENDLESS = b"GET /health HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n"


def connect(server: Running) -> socket.socket:
    host, _, port = server.url.removeprefix("http://").partition(":")
    return socket.create_connection((host, int(port)), timeout=PATIENCE)


def read_rest(client: socket.socket) -> bytes:
    """What arrives until the server ends the connection."""
    received = b""
    try:
        while part := client.recv(1 << 16):
            received += part
    except ConnectionError:  # the server did not read everything
        pass
    return received


def error_of(received: bytes) -> tuple[int, dict[str, Any]]:
    """Status and error of the last answer."""
    head, _, text = received[received.rindex(b"HTTP/1.1 ") :].partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head
    assert b"connection: close" in head.lower()
    return int(head.split()[1]), json.loads(text)["error"]


@pytest.mark.parametrize(
    ("first", "slow"),
    [
        (b"", b"GET /health HTTP/1.1\r\nX-Long: " + b"x" * 10_000),
        (WHOLE, WHOLE[:-2] + b"X-Long: " + b"x" * 10_000),
        (ENDLESS, b"x" * 10_000),
    ],
    ids=["first request", "second request", "body nobody reads"],
)
def test_a_request_that_arrives_byte_by_byte_is_cut_off(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, first: bytes, slow: bytes
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.3)
    with running(engine) as server, connect(server) as client:
        received = b""
        if first:
            client.sendall(first)
            while not received.endswith(b'{"status":"ok"}'):
                received += client.recv(1 << 16)
        for byte in slow:
            client.send(bytes([byte]))
            if select.select([client], [], [], 0.01)[0]:
                break
        status, error = error_of(read_rest(client))
        assert (status, error["type"]) == (408, "invalid_request_error")


def test_a_connection_without_a_request_is_cut_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.1)
    with running(engine) as server, connect(server) as client:
        assert error_of(read_rest(client))[0] == 408


def test_a_request_that_waits_for_its_answer_is_not_cut_off(
    make_engine: Callable[..., Engine], loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "HEADER_SECONDS", 0.1)
    brake = Brake(loaded)
    with ThreadPoolExecutor() as pool, running(make_engine()) as server:
        answer = pool.submit(server.ask, "POST", "/v1/chat/completions", hello())
        assert brake.reached.wait(PATIENCE)
        with connect(server) as later:
            assert error_of(read_rest(later))[0] == 408
        brake.released.set()
        assert answer.result(PATIENCE).status == 200


POST = b"POST /v1/chat/completions HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def test_a_body_that_arrives_byte_by_byte_is_cut_off(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    with running(engine) as server, connect(server) as client:
        client.sendall(POST + b"Content-Length: 1000000\r\n\r\n")
        while not select.select([client], [], [], 0.01)[0]:
            client.send(b"x")
        status, error = error_of(read_rest(client))
        assert (status, error["type"]) == (408, "invalid_request_error")


def test_an_endless_body_is_cut_off(engine: Engine) -> None:
    with running(engine) as server, connect(server) as client:
        client.sendall(POST + b"Transfer-Encoding: chunked\r\n\r\n")
        sent = 0
        with suppress(ConnectionError):
            while sent < 256 and not select.select([client], [], [], 0)[0]:
                client.sendall(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
                sent += 1
        assert sent < 256
        status, error = error_of(read_rest(client))
        assert (status, error["code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET /health HTTP/1.1\r\nX: " + b"x" * 20_000,
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET\r\n\r\n",
    ],
    ids=["long headers", "TLS", "no path"],
)
def test_what_is_not_http_or_too_long_is_a_400(engine: Engine, sent: bytes) -> None:
    with running(engine) as server, connect(server) as client:
        client.sendall(sent)
        status, error = error_of(read_rest(client))
        assert (status, error["type"]) == (400, "invalid_request_error")
        assert server.ask("GET", "/health").status == 200


def test_too_many_connections_are_refused_until_some_have_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "MAX_CONNECTIONS", 3)
    with running(engine) as server:
        idle = [connect(server) for _ in range(3)]
        with connect(server) as client:
            status, error = error_of(read_rest(client))
        assert (status, error["code"]) == (503, "unavailable")
        for client in idle:
            client.close()
        with connect(server) as client:
            client.sendall(WHOLE)
            assert client.recv(1 << 16).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_that_takes_too_long_ends_with_a_504(engine: Engine, stream: bool) -> None:
    with running(engine, deadline=0.1) as server:
        answer = server.ask("POST", "/v1/chat/completions", hello(stream=stream, max_tokens=480, temperature=0))
    if stream:
        last = json.loads(answer.text.strip().split("\n\n")[-1].removeprefix("data: "))
        assert last["error"]["code"] == "deadline_exceeded"
    else:
        assert (answer.status, answer.error["code"]) == (504, "deadline_exceeded")
