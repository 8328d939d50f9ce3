"""Limits per key: requests per minute and at once."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import openai
import pytest

from finetune.models.load import LoadedModel
from finetune.serve.api.keys import ApiKey
from finetune.serve.api.limits import Limits
from finetune.serve.api.problem import ApiError
from finetune.serve.engine.engine import Engine

from .conftest import ALICE, KEY, Brake, Running, hello, running

CHAT = "/v1/chat/completions"
BOB = ApiKey("bob", "another-random-string")


def as_client(key: ApiKey) -> dict[str, str]:
    return {"Authorization": f"Bearer {key.value}"}


def send(limits: Limits, client: str) -> str | None:
    """The seconds to wait, or None if the request was admitted."""
    try:
        with limits.admit(client):
            return None
    except ApiError as error:
        return error.headers["Retry-After"]


def test_requests_per_minute_refill_evenly_and_each_key_has_its_own() -> None:
    now = [0.0]
    limits = Limits(6, None, clock=lambda: now[0])
    assert [send(limits, "alice") for _ in range(7)] == [None] * 6 + ["10"]
    assert send(limits, "bob") is None
    now[0] = 9.5
    assert send(limits, "alice") == "1"
    now[0] = 10
    assert [send(limits, "alice"), send(limits, "alice")] == [None, "10"]
    now[0] = 1000  # a long pause saves no more than a minute
    assert [send(limits, "alice") for _ in range(7)] == [None] * 6 + ["10"]


def test_requests_at_once_are_counted_until_they_end() -> None:
    limits = Limits(None, 2)
    with limits.admit("alice"), limits.admit("alice"):
        assert send(limits, "alice") == "1"
        assert send(limits, "bob") is None
    assert send(limits, "alice") is None


def test_a_client_over_its_limit_gets_a_429_that_says_when_to_retry(engine: Engine) -> None:
    with running(engine, ALICE, BOB, requests_per_minute=2) as server:
        statuses = [server.ask("GET", "/v1/models", headers=as_client(ALICE)).status for _ in range(2)]
        refused = server.ask("GET", "/v1/models", headers=as_client(ALICE))
        other = server.ask("GET", "/v1/models", headers=as_client(BOB))
        probe = server.ask("GET", "/health", headers=as_client(ALICE))
        with (
            openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY, max_retries=0) as client,
            pytest.raises(openai.RateLimitError, match="2 requests per minute"),
        ):
            client.models.list()
    assert (statuses, refused.status, other.status, probe.status) == ([200, 200], 429, 200, 200)
    assert (refused.error["type"], refused.error["code"]) == ("rate_limit_error", "rate_limit_exceeded")
    assert 0 < int(refused.headers["retry-after"]) <= 30


@pytest.mark.parametrize("stream", [False, True])
def test_an_answer_in_progress_counts_until_it_ends(
    make_engine: Callable[..., Engine], loaded: LoadedModel, stream: bool
) -> None:
    def ask(server: Running) -> int:
        return server.ask("POST", CHAT, hello(stream=stream)).status

    brake = Brake(loaded)
    with running(make_engine(), concurrency=1) as server, ThreadPoolExecutor() as pool:
        first = pool.submit(ask, server)
        assert brake.reached.wait(30)
        second = ask(server)
        brake.released.set()
        assert (first.result(30), second) == (200, 429)
        assert ask(server) == 200


def test_a_wrong_key_does_not_use_up_the_limit_of_another(engine: Engine) -> None:
    with running(engine, ALICE, requests_per_minute=1) as server:
        for _ in range(3):
            assert server.ask("GET", "/v1/models", headers={"Authorization": "Bearer x"}).status == 401
        assert server.ask("GET", "/v1/models", headers=as_client(ALICE)).status == 200
