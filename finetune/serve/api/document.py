"""The OpenAPI document at /openapi.json: every route with its body, its answers and its errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from finetune.serve.api.admin import LoadRequest, UnloadRequest
from finetune.serve.api.auth import LOAD_PATH, OPEN_PATHS, UNLOAD_PATH
from finetune.serve.api.embeddings import EmbeddingsRequest
from finetune.serve.api.request_fields import RequestPart
from finetune.serve.api.responses import ResponsesRequest
from finetune.serve.api.schema import ChatRequest, ClassifyRequest, CompletionRequest

URL = "/openapi.json"
REFERENCE = "#/components/schemas/{model}"
CHOICES = ("id", "object", "created", "model", "choices", "usage")
BODIES: dict[str, tuple[type[RequestPart], Sequence[str]]] = {  # with the fields of the answer
    "/v1/chat/completions": (ChatRequest, CHOICES),
    "/v1/completions": (CompletionRequest, CHOICES),
    "/v1/responses": (ResponsesRequest, ("id", "object", "created_at", "model", "status", "output", "usage")),
    "/v1/embeddings": (EmbeddingsRequest, ("object", "model", "data", "usage")),
    LOAD_PATH: (LoadRequest, ("id", "object", "parent")),
    UNLOAD_PATH: (UnloadRequest, ("id", "object", "deleted")),
    "/v1/classify": (ClassifyRequest, ("id", "object", "created", "model", "data", "usage")),
}
ANSWERS: dict[str, Sequence[str]] = {
    "/v1/models": ("object", "data"),
    "/v1/models/{name}": ("id", "object", "created", "owned_by", "root", "parent"),
    "/health": ("status",),
    "/ready": ("status",),
}
STREAMED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/responses"})


class Problem(BaseModel):
    """What is wrong with a request, and with which of its fields."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """The body of every answer with a status of 400 or more."""

    error: Problem


def describe_app(app: FastAPI, models: Sequence[str]) -> dict[str, Any]:
    """The OpenAPI document of an application that serves `models`."""
    document = get_openapi(title=app.title, version=app.version, routes=app.routes)
    bodies: list[type[BaseModel]] = [*(body for body, _ in BODIES.values()), ErrorBody]
    _, definitions = models_json_schema([(body, "validation") for body in bodies], ref_template=REFERENCE)
    schemas: dict[str, Any] = definitions["$defs"]
    for body, _ in BODIES.values():
        if "model" in schemas[body.__name__]["properties"]:
            schemas[body.__name__]["properties"]["model"] = {"type": "string", "enum": list(models)}
    keys = {"type": "http", "scheme": "bearer"}
    document["components"] = {"schemas": schemas, "securitySchemes": {"key": keys}}
    for path, methods in document["paths"].items():
        for operation in methods.values():
            _complete(path, operation)
    return document


def _complete(path: str, operation: dict[str, Any]) -> None:
    """Add to an operation what its function does not say: it reads and writes the bodies itself."""
    if path in BODIES:
        body, fields = BODIES[path]
        operation["requestBody"] = {"required": True, "content": _json({"$ref": REFERENCE.format(model=body.__name__)})}
    else:
        fields = ANSWERS.get(path, ())
    content: dict[str, Any] = _json({"type": "object", "required": list(fields)}) if fields else {}
    if path in STREAMED:
        content["text/event-stream"] = {}
    if not fields:
        content[{"/metrics": "text/plain", "/": "text/html"}.get(path, "application/json")] = {}
    operation["responses"] = {
        "200": {"description": "The answer", "content": content},
        "default": {"description": "An error", "content": _json({"$ref": REFERENCE.format(model="ErrorBody")})},
    }
    if path not in OPEN_PATHS:
        operation["security"] = [{"key": []}]


def _json(schema: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
