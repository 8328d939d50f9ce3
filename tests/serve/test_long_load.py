"""Hundreds of requests of all kinds: every good one is answered, none fails, and memory does not grow.

benchmarks/serve_load.py sends thousands.
"""

from __future__ import annotations

import gc
import json
import random
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import psutil
import pytest

from finetune.serve.engine.engine import Engine

from .conftest import Running, hello, running

CHAT = "/v1/chat/completions"
REQUESTS = 600
AT_ONCE = 16
MALFORMED: list[Any] = [
    b"{",
    {"model": "tiny"},
    hello(model="nobody"),
    hello(max_tokens=-1),
    hello(temperature="warm"),
    hello(max_tokens=10**6),
]


def abandon(server: Running, body: dict[str, object]) -> None:
    """Send a request, read a little of the answer if it is a stream, and disconnect."""
    connection = server.connect()
    with suppress(OSError):
        connection.request("POST", CHAT, json.dumps(body), {"Content-Type": "application/json"})
        if body.get("stream"):
            connection.getresponse().read(10)
    connection.close()


def send(server: Running, number: int) -> str:
    """One request by its number; returns its kind and status."""
    chance = random.Random(number)
    text = " ".join(chance.choices(["profit", "rose", "by", "a", "third"], k=chance.choice([1, 5, 20, 100])))
    body = hello(
        messages=[{"role": "user", "content": text}],
        max_tokens=chance.choice([1, 4, 16, 40]),
        temperature=chance.choice([0, 0.7, 1.0]),
        stream=chance.random() < 0.5,
    )
    kind = chance.random()
    if kind < 0.2:
        abandon(server, body)
        return "abandoned"
    if kind < 0.3:
        return f"malformed {server.ask('POST', CHAT, chance.choice(MALFORMED)).status}"
    return f"good {server.ask('POST', CHAT, body).status}"


@pytest.mark.slow
def test_hundreds_of_requests_leave_a_server_as_it_was(make_engine: Callable[..., Engine]) -> None:
    process = psutil.Process()
    outcomes: Counter[str] = Counter()
    engine = make_engine(slots=16, queue_size=64)
    with running(engine) as server, ThreadPoolExecutor(AT_ONCE) as pool:
        for half in range(2):
            numbers = range(half * REQUESTS // 2, (half + 1) * REQUESTS // 2)
            outcomes.update(pool.map(lambda number: send(server, number), numbers))
            gc.collect()
            if half == 0:
                before = process.memory_info().rss
        growth = process.memory_info().rss / before - 1
        assert server.ask("POST", CHAT, hello()).status == 200
    assert outcomes.total() == REQUESTS
    assert set(outcomes) <= {"abandoned", "good 200", "malformed 400", "malformed 404"}
    assert growth < 0.05
    assert (engine.running, engine.waiting) == (0, 0)
