"""Load and shutdown: full queues, clients that disconnect, a dead worker."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pytest

from finetune.models.load import LoadedModel
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationJob, GenerationParams

from .conftest import Brake, Running, hello, running

CHAT = "/v1/chat/completions"
LONG = {"max_tokens": 400, "temperature": 0}


def start(server: Running, **fields: object) -> Callable[[], None]:
    """Send a request without waiting for its answer; the function returned disconnects."""
    connection = server.connect()
    connection.request("POST", CHAT, json.dumps(hello(**fields)), {"Content-Type": "application/json"})
    return connection.close


def test_a_full_queue_is_a_429_that_says_when_to_retry(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    engine = make_engine(queue_size=1)
    with running(engine) as server:
        for _ in range(2):
            engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        answer = server.ask("POST", CHAT, hello())
        brake.released.set()
    assert (answer.status, answer.error["type"]) == (429, "rate_limit_error")
    assert int(answer.headers["retry-after"]) >= 1


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_the_worker(
    make_engine: Callable[..., Engine], loaded: LoadedModel, stream: bool
) -> None:
    brake = Brake(loaded)
    with running(make_engine()) as server:
        hang_up = start(server, stream=stream, **LONG)
        assert brake.reached.wait(30)
        hang_up()
        server.ask("GET", "/health")  # the server has noticed the disconnection before this answer
        brake.released.set()
        assert server.ask("POST", CHAT, hello(max_tokens=2)).status == 200
    assert brake.steps < 20


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_the_queue_makes_room(
    make_engine: Callable[..., Engine], loaded: LoadedModel, stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    brake = Brake(loaded)
    engine = make_engine(queue_size=1)
    queued = threading.Event()

    def submit(*arguments: Any) -> GenerationJob:
        job = Engine.submit(engine, *arguments)
        queued.set()
        return job

    with running(engine) as server, ThreadPoolExecutor() as pool:
        engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        monkeypatch.setattr(engine, "submit", submit)
        assert brake.reached.wait(30)
        hang_up = start(server, stream=stream, **LONG)
        assert queued.wait(30)
        refused = server.ask("POST", CHAT, hello())
        hang_up()
        server.ask("GET", "/health")
        accepted = pool.submit(server.ask, "POST", CHAT, hello())
        brake.released.set()
        assert (refused.status, accepted.result(30).status) == (429, 200)


def test_many_abandoned_requests_leave_a_server_that_answers(make_engine: Callable[..., Engine]) -> None:
    with running(make_engine(queue_size=100)) as server:
        for hang_up in [start(server, stream=bool(number % 2), **LONG) for number in range(40)]:
            hang_up()
        assert server.ask("POST", CHAT, hello()).status == 200


def test_parallel_requests_get_their_own_answers(make_engine: Callable[..., Engine]) -> None:
    texts = [f"number {number} " * (number + 1) for number in range(8)]

    def ask(text: str) -> object:
        answer = server.ask(
            "POST", "/v1/completions", {"model": "tiny", "prompt": text, "temperature": 0, "max_tokens": 8}
        )
        return answer.data["choices"], answer.data["usage"]["total_tokens"]

    with running(make_engine(slots=4, queue_size=8)) as server:
        one_by_one = [ask(text) for text in texts]
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(ask, texts)) == one_by_one


def test_health_is_down_when_the_worker_died(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    def die(*_: object) -> None:
        raise SystemExit

    engine = make_engine()
    loaded.model.register_forward_pre_hook(die)
    with running(engine) as server:
        assert server.ask("GET", "/health").status == 200
        assert server.ask("POST", CHAT, hello()).error["code"] == "unavailable"
        engine.join()
        answers = [server.ask("GET", "/health"), server.ask("POST", CHAT, hello())]
        assert [(answer.status, answer.error["code"]) for answer in answers] == [(503, "unavailable")] * 2


def test_a_failing_model_is_a_500_without_its_cause_and_a_stream_says_so_in_its_events(
    make_engine: Callable[..., Engine], loaded: LoadedModel, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hidden".upper()

    def fail(*_: object) -> None:
        raise RuntimeError(secret)

    engine = make_engine()
    loaded.model.register_forward_pre_hook(fail)
    with running(engine) as server:
        whole = server.ask("POST", CHAT, hello())
        streamed = server.ask("POST", CHAT, hello(stream=True))
    assert (whole.status, whole.error["type"]) == (500, "server_error")
    *_, last = streamed.text.strip().split("\n\n")
    assert json.loads(last.removeprefix("data: ")) == whole.data
    assert secret not in whole.text + streamed.text + caplog.text


def test_logs_count_tokens_and_contain_no_text(
    make_engine: Callable[..., Engine], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    secret = "hypertension"
    with running(make_engine()) as server:
        answer = server.ask("POST", CHAT, hello(messages=[{"role": "user", "content": secret}], temperature=0))
        server.ask("POST", CHAT, hello(messages=[{"role": "user", "content": secret}], temperature=secret))
    said = answer.data["choices"][0]["message"]["content"]
    assert "4 completion tokens" in caplog.text
    assert secret not in caplog.text
    assert said not in caplog.text


def test_shutting_down_lets_a_request_finish(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    with ThreadPoolExecutor() as pool:
        with running(make_engine()) as server:
            answer = pool.submit(server.ask, "POST", CHAT, hello())
            assert brake.reached.wait(30)
            server.server.should_exit = True
            brake.released.set()
        assert answer.result(30).status == 200


def test_shutting_down_ends_requests_that_take_too_long(
    make_engine: Callable[..., Engine], loaded: LoadedModel
) -> None:
    brake = Brake(loaded)
    with ThreadPoolExecutor() as pool:
        with running(make_engine(), drain_seconds=0.1) as server:
            whole = pool.submit(server.ask, "POST", CHAT, hello())
            assert brake.reached.wait(30)
            streaming = threading.Event()
            streamed = pool.submit(_stream, server, streaming)
            assert streaming.wait(30)
        brake.released.set()
        assert (whole.result(30).status, whole.result().error["code"]) == (503, "unavailable")
        last = streamed.result(30).strip().split("\n\n")[-1]
        assert json.loads(last.removeprefix("data: ")) == whole.result().data


def _stream(server: Running, started: threading.Event) -> str:
    with closing(server.connect()) as connection:
        connection.request("POST", CHAT, json.dumps(hello(stream=True)), {"Content-Type": "application/json"})
        response = connection.getresponse()
        started.set()
        return response.read().decode()
