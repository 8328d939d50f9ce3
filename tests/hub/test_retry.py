from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx2
import pytest

from finetune.hub.retry import RetryingClient, UnreachableError, requested_wait

from .local_hub import Fault, LocalHub


def response(status: int, **headers: str) -> httpx2.Response:
    return httpx2.Response(status, headers={name.replace("_", "-"): value for name, value in headers.items()})


@pytest.mark.parametrize(
    ("answer", "seconds"),
    [
        (response(503, Retry_After="7"), 7),
        (response(429, RateLimit='"api";r=0;t=55'), 55),
        (response(429, Retry_After="3", RateLimit='"api";r=0;t=55'), 3),
        (response(503, RateLimit='"api";r=0;t=55'), 0),  # the rate-limit window does not matter if the server is down
        (response(503, Retry_After="soon"), 0),
        (response(503), 0),
    ],
)
def test_wait_is_the_one_that_the_hub_requests(answer: httpx2.Response, seconds: float) -> None:
    assert requested_wait(answer) == seconds


def test_wait_can_be_a_date() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=90), usegmt=True)

    assert 85 < requested_wait(response(503, Retry_After=date)) <= 90


def test_only_requests_that_change_nothing_are_repeated(local_hub: LocalHub) -> None:
    local_hub.faults.append(Fault(503, times=1))
    with RetryingClient(base_url=local_hub.endpoint) as client:
        assert client.get("/api/models/acme/none").status_code == 401
        local_hub.faults.append(Fault(503, times=1))
        assert client.post("/api/repos/create", json={"name": "x"}).status_code == 503

    assert [record.status for record in local_hub.requests] == [503, 401, 503]


def test_refusal_is_not_repeated(local_hub: LocalHub) -> None:
    with RetryingClient(base_url=local_hub.endpoint) as client:
        client.get("/api/whoami-v2")

    assert len(local_hub.requests) == 1


def test_base_model_arrives_from_a_busy_hub(local_hub: LocalHub, tiny_model: Path, tmp_path: Path) -> None:
    local_hub.serve("model", "acme/tiny", tiny_model)
    local_hub.faults += [Fault(503, every=3, path="GET .*/resolve/"), Fault(503, times=1, path="GET /api/")]
    environment = {**os.environ, **local_hub.environ(tmp_path / "hf")}

    code = "from finetune.models import resolve; print(resolve('acme/tiny'))"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)

    assert done.returncode == 0, done.stderr
    assert (Path(done.stdout.strip()) / "model.safetensors").read_bytes() == (
        tiny_model / "model.safetensors"
    ).read_bytes()
    assert {fault.done for fault in local_hub.faults} != {0}


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return int(server.getsockname()[1])


def test_hub_that_nobody_answers_at_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tries: list[str] = []
    send = httpx2.Client.send

    def count(client: httpx2.Client, request: httpx2.Request, **options: Any) -> httpx2.Response:
        tries.append(request.method)
        return send(client, request, **options)

    monkeypatch.setattr(httpx2.Client, "send", count)
    monkeypatch.setattr("time.sleep", lambda seconds: pytest.fail(f"waits {seconds} s"))
    endpoint = f"http://127.0.0.1:{free_port()}"

    for method in ("HEAD", "GET", "GET"):
        with RetryingClient(base_url=endpoint) as client, pytest.raises(UnreachableError):
            client.request(method, "/api/models/acme/none")

    assert tries == ["HEAD"]


def test_hub_that_went_away_is_not_given_up(local_hub: LocalHub, monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    monkeypatch.setattr("time.sleep", waits.append)
    with RetryingClient(base_url=local_hub.endpoint) as client:
        client.get("/api/whoami-v2")
    local_hub.__exit__(None, None, None)

    for _ in range(2):
        with RetryingClient(base_url=local_hub.endpoint) as client, pytest.raises(httpx2.ConnectError):
            client.get("/api/whoami-v2")

    assert waits == [1.0, 1.0]
