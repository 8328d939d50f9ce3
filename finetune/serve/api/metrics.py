"""What Prometheus reads at /metrics: figures of the requests, never their text, with labels from short known lists."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)

from finetune.machine import process_seconds
from finetune.serve.api.facts import RequestFacts

if TYPE_CHECKING:
    from finetune.serve.engine.kinds import AnyEngine

UNKNOWN = "unknown"  # a path or a model that the server does not have: clients cannot add labels
ANSWER_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 40, 80, 160)
FIRST_TEXT_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20)


class Metrics:
    """The figures of one server. `registry` has those of its process, too: memory, processor time, open files."""

    def __init__(self, engine: AnyEngine) -> None:
        disable_created_metrics()  # else each counter has a twin with the time of its first increment
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        by_model = ["model"]
        self._requests = Counter(
            "slmtune_requests", "Requests answered.", ["route", "model", "status"], registry=registry
        )
        self._prompt = Counter("slmtune_prompt_tokens", "Tokens of prompts.", by_model, registry=registry)
        self._completion = Counter("slmtune_completion_tokens", "Tokens of answers.", by_model, registry=registry)
        self._cancelled = Counter(
            "slmtune_cancellations", "Requests whose client left before the end.", by_model, registry=registry
        )
        self._answer = Histogram(
            "slmtune_request_seconds",
            "Seconds from a request to the end of its answer.",
            ["route", "model"],
            buckets=ANSWER_SECONDS,
            registry=registry,
        )
        self._first_text = Histogram(
            "slmtune_time_to_first_token_seconds",
            "Seconds from a request to the first text of its answer.",
            by_model,
            buckets=FIRST_TEXT_SECONDS,
            registry=registry,
        )
        Gauge("slmtune_requests_waiting", "Requests in the queue.", registry=registry).set_function(
            lambda: engine.waiting
        )
        Gauge("slmtune_requests_running", "Requests that are being answered.", registry=registry).set_function(
            lambda: engine.running
        )
        self._ready = Gauge(
            "slmtune_ready_seconds", "Seconds from the start of the process until it was ready.", registry=registry
        )
        Gauge("slmtune_up", "1 if the worker is running.", registry=registry).set_function(lambda: engine.alive)

    def note_ready(self) -> None:
        """Keep how long the server took to be ready, which it is now."""
        self._ready.set(process_seconds())

    def count(self, facts: RequestFacts) -> None:
        """Add a request that has been answered."""
        route, model = facts.route or UNKNOWN, facts.model or UNKNOWN
        self._requests.labels(route, model, str(facts.status)).inc()
        if not facts.model:
            return
        self._prompt.labels(model).inc(facts.prompt_tokens)
        self._completion.labels(model).inc(facts.completion_tokens)
        self._answer.labels(route, model).observe(facts.seconds)
        if facts.finish_reason == "cancelled":
            self._cancelled.labels(model).inc()
        if facts.first_text is not None:
            self._first_text.labels(model).observe(facts.first_text)
