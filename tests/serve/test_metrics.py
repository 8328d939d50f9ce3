"""/metrics: what Prometheus reads there, and that no client can add a label or leave a text."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
from prometheus_client.parser import text_string_to_metric_families

from finetune.models.load import LoadedModel
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams

from .conftest import ALICE, Brake, Running, hello, running

CHAT = "/v1/chat/completions"
SECRET = "hypertension"


def figures(server: Running) -> dict[tuple[str, ...], float]:
    """Each sample by its name and the values of its labels, in the order of their names."""
    families = text_string_to_metric_families(server.ask("GET", "/metrics").text)
    return {
        (one.name, *(value for _, value in sorted(one.labels.items()))): one.value
        for family in families
        for one in family.samples
    }


def test_requests_and_tokens_are_counted_by_model(engine: Engine) -> None:
    with running(engine) as server:
        usage = [server.ask("POST", CHAT, hello(temperature=0)).data["usage"] for _ in range(2)]
        server.ask("POST", CHAT, hello(stream=True))
        server.ask("POST", CHAT, hello(temperature=9))
        after = figures(server)
    assert after["slmtune_requests_total", "tiny", CHAT, "200"] == 3
    assert after["slmtune_requests_total", "unknown", CHAT, "400"] == 1
    assert after["slmtune_prompt_tokens_total", "tiny"] == 3 * usage[0]["prompt_tokens"]
    assert after["slmtune_completion_tokens_total", "tiny"] >= 2 * usage[0]["completion_tokens"]
    assert after["slmtune_request_seconds_count", "tiny", CHAT] == 3
    assert (
        0
        < after["slmtune_time_to_first_token_seconds_sum", "tiny"]
        <= after["slmtune_request_seconds_sum", "tiny", CHAT]
    )
    assert after["slmtune_up",] == 1
    assert after["slmtune_ready_seconds",] > 0
    assert after["process_resident_memory_bytes",] > 1 << 20


def test_clients_cannot_add_labels_and_no_text_is_counted(engine: Engine) -> None:
    with running(engine) as server:
        server.ask("POST", CHAT, hello(messages=[{"role": "user", "content": SECRET}]))
        before = set(figures(server))
        for number in range(3):
            server.ask("POST", CHAT, hello(model=f"{SECRET}{number}"))
            server.ask("GET", f"/v1/models/{SECRET}{number}")
            server.ask("GET", f"/{SECRET}{number}")
            server.ask("BREW", "/health")
        text = server.ask("GET", "/metrics").text
        added = set(figures(server)) - before
    assert SECRET not in text
    assert {sample[1:] for sample in added if sample[0] == "slmtune_requests_total"} == {
        ("unknown", CHAT, "404"),
        ("unknown", "/v1/models/{name:path}", "404"),
        ("unknown", "/metrics", "200"),
        ("unknown", "unknown", "404"),
        ("unknown", "/health", "405"),
    }


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_is_counted_with_its_tokens(
    make_engine: Callable[..., Engine], loaded: LoadedModel, stream: bool
) -> None:
    brake = Brake(loaded)
    with running(make_engine()) as server:
        connection = server.connect()
        body = json.dumps(hello(stream=stream, max_tokens=400))
        connection.request("POST", CHAT, body, {"Content-Type": "application/json"})
        assert brake.reached.wait(30)
        connection.close()
        server.ask("GET", "/health")  # the server has noticed the disconnection before this answer
        brake.released.set()
        server.ask("POST", CHAT, hello(max_tokens=1))
        after = figures(server)
    assert after["slmtune_cancellations_total", "tiny"] == 1
    assert after["slmtune_prompt_tokens_total", "tiny"] > 0


def test_waiting_and_running_requests_are_counted(make_engine: Callable[..., Engine], loaded: LoadedModel) -> None:
    brake = Brake(loaded)
    engine = make_engine()
    with running(engine) as server:
        engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        assert brake.reached.wait(30)
        engine.submit([1], GenerationParams(max_tokens=1), "tiny", lambda event: None)
        after = figures(server)
        brake.released.set()
    assert (after["slmtune_requests_waiting",], after["slmtune_requests_running",]) == (1, 1)


def test_figures_need_a_key_where_there_are_keys(engine: Engine) -> None:
    with running(engine, ALICE) as server:
        assert server.ask("GET", "/metrics").status == 401
        answer = server.ask("GET", "/metrics", headers={"Authorization": f"Bearer {ALICE.value}"})
    assert (answer.status, answer.headers["content-type"].partition(";")[0]) == (200, "text/plain")
