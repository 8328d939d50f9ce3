"""The routes for those who run the server or look around on it: health, readiness, metrics and the models."""

from __future__ import annotations

from fastapi import FastAPI, Request
from prometheus_client.exposition import choose_encoder
from starlette.responses import JSONResponse, Response

from finetune.serve.api.known_task import usual_labels
from finetune.serve.api.metrics import Metrics
from finetune.serve.api.problem import ApiError
from finetune.serve.api.schema import ModelCard
from finetune.serve.engine.classifier import Classifier
from finetune.serve.engine.job import ServedModel
from finetune.serve.engine.kinds import AnyEngine


def add_operations(app: FastAPI, engine: AnyEngine, metrics: Metrics) -> None:
    """Add the routes to an application."""

    @app.get("/v1/models")
    async def models() -> Response:
        """List the models that requests may name."""
        return JSONResponse({"object": "list", "data": [card_of(engine, served) for served in engine.served.values()]})

    @app.get("/v1/models/{name:path}")
    async def model(name: str) -> Response:
        """Describe one of these models."""
        return JSONResponse(card_of(engine, find_model(engine, name)))

    @app.get("/health")
    async def health() -> Response:
        """Report whether requests can be answered."""
        if not engine.alive:
            raise ApiError(503, "The worker is not running. Restart the server", code="unavailable")
        return JSONResponse({"status": "ok"})

    @app.get("/ready")
    async def ready() -> Response:
        """Report whether a request sent now would be answered."""
        if not engine.alive or engine.waiting >= engine.queue_size:
            raise ApiError(503, "The queue is full, or the worker is not running", code="unavailable")
        return JSONResponse({"status": "ok"})

    @app.get("/metrics")
    async def prometheus(request: Request) -> Response:
        """Report the figures of the server in the text format of Prometheus."""
        encode, content_type = choose_encoder(request.headers.get("accept", ""))
        return Response(encode(metrics.registry), media_type=content_type)


def find_model(engine: AnyEngine, name: str) -> ServedModel:
    """The model that a request names.

    Raises:
        ApiError: 404; there is none of that name.
    """
    served = engine.served.get(name)
    if served is None:
        known = ", ".join(engine.served)
        raise ApiError(
            404, f"This server has no model of that name. Available: {known}", param="model", code="model_not_found"
        )
    return served


def card_of(engine: AnyEngine, served: ServedModel) -> dict[str, object]:
    """The entry of a model in /v1/models."""
    root, task, labels = served.parent or served.id, "generation", usual_labels(served)
    if isinstance(engine, Classifier):
        task, labels = engine.head.kind, list(engine.head.labels) or None
    card = ModelCard(id=served.id, created=engine.created, root=root, parent=served.parent, task=task, labels=labels)
    return card.model_dump()
