"""The process of a server: it ends with its engine, and after a signal within the time that it is given."""

from __future__ import annotations

import http.client
import json
import signal
import socket
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.command import Command

CHAT = "/v1/chat/completions"
PATIENCE = 60


def fail_once_there(file: Path) -> None:
    """Let every model fail as an accelerator does that cannot be used any more, once a file exists."""
    import torch

    def fail(*_: object) -> None:
        if file.exists():
            raise torch.AcceleratorError("the device is lost")

    torch.nn.modules.module.register_module_forward_pre_hook(fail)


def wait_once_there(file: Path) -> None:
    """Let every model wait before each step while a file exists."""
    import torch

    def wait(*_: object) -> None:
        while file.exists():
            time.sleep(0.01)

    torch.nn.modules.module.register_module_forward_pre_hook(wait)


def start(model: Path, cwd: Path, before: Callable[[], None], *options: object) -> tuple[Command, str]:
    """A server with the tiny model, and its address."""
    command = Command("serve", f"tiny={model}", "--port", 0, "--json", *options, cwd=cwd, before=before)
    assert command.until(lambda: command.stdout.endswith("\n")), command.stderr
    return command, command.result["url"].removeprefix("http://")


def ask(address: str, method: str = "GET", path: str = "/health", **fields: object) -> tuple[int, Any]:
    """Status and body of a request; 0 if the server ended the connection."""
    connection = http.client.HTTPConnection(address, timeout=PATIENCE)
    body = {"model": "tiny", "messages": [{"role": "user", "content": "hello"}], "max_tokens": 4, **fields}
    try:
        connection.request(method, path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    except (ConnectionError, http.client.HTTPException):
        return 0, None
    finally:
        connection.close()


def test_a_server_whose_engine_dies_says_so_and_ends(tiny_model: Path, tmp_path: Path) -> None:
    lost = tmp_path / "lost"
    command, address = start(tiny_model, tmp_path, partial(fail_once_there, lost))
    assert (ask(address)[0], ask(address, "POST", CHAT)[0]) == (200, 200)
    assert 0 < command.result["seconds"] < PATIENCE
    lost.touch()
    status, body = ask(address, "POST", CHAT)
    assert (status, body["error"]["code"]) == (503, "unavailable")
    assert ask(address)[0] == 503
    assert command.wait() == 1
    assert command.stderr.splitlines()[-1].endswith(
        "The engine has died, so the server has ended. Its log says why. Start it again"
    )
    assert "AcceleratorError" in command.stderr
    assert "Traceback" not in command.stderr


@pytest.fixture
def brake(tmp_path: Path) -> Path:
    """A file that stops the engine while it exists."""
    return tmp_path / "brake"


def is_running(address: str) -> bool:
    """Whether a request is being answered or waits for it."""
    with closing(http.client.HTTPConnection(address, timeout=PATIENCE)) as connection:
        connection.request("GET", "/metrics")
        return "slmtune_requests_running 0.0" not in connection.getresponse().read().decode()


def test_a_signal_refuses_new_requests_and_ends_those_that_outlast_the_time(
    tiny_model: Path, tmp_path: Path, brake: Path
) -> None:
    command, address = start(tiny_model, tmp_path, partial(wait_once_there, brake), "--drain-seconds", 1)
    brake.touch()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, address, "POST", CHAT)
        assert command.until(lambda: is_running(address))
        command.send(signal.SIGTERM)
        assert command.until(lambda: ask(address)[0] == 0)
        assert not answer.done()
        status, body = answer.result(PATIENCE)
    assert (status, body["error"]["code"]) == (503, "unavailable")
    brake.unlink()
    assert command.wait() == 128 + signal.SIGTERM
    assert "Traceback" not in command.stderr


def test_a_signal_lets_requests_finish_in_time(tiny_model: Path, tmp_path: Path, brake: Path) -> None:
    command, address = start(tiny_model, tmp_path, partial(wait_once_there, brake), "--drain-seconds", PATIENCE)
    brake.touch()
    with ThreadPoolExecutor() as pool:
        answer = pool.submit(ask, address, "POST", CHAT)
        assert command.until(lambda: is_running(address))
        command.send(signal.SIGTERM)
        assert command.until(lambda: ask(address)[0] == 0)
        brake.unlink()
        assert answer.result(PATIENCE)[0] == 200
    assert command.wait() == 128 + signal.SIGTERM


def test_a_second_signal_ends_a_server_at_once(tiny_model: Path, tmp_path: Path, brake: Path) -> None:
    command, address = start(tiny_model, tmp_path, partial(wait_once_there, brake), "--drain-seconds", 3600)
    brake.touch()
    host, _, port = address.partition(":")
    slow = socket.create_connection((host, int(port)))  # a client whose body does not come does not wait for the engine
    slow.sendall(
        f"POST {CHAT} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n".encode()
    )
    with ThreadPoolExecutor() as pool, slow:
        answer = pool.submit(ask, address, "POST", CHAT)
        assert command.until(lambda: is_running(address))
        command.send(signal.SIGTERM)
        assert command.until(lambda: ask(address)[0] == 0)
        command.send(signal.SIGTERM)
        assert answer.result(PATIENCE)[0] == 503
        brake.unlink()
        assert command.wait() == 128 + signal.SIGTERM
