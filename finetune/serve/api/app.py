"""The application: its layers, and the routes that ask a model."""

from __future__ import annotations

from collections.abc import Sequence

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response

from finetune import __version__
from finetune.recipe.options import ServeOptions
from finetune.serve.api.admin import add_admin
from finetune.serve.api.auth import Gate
from finetune.serve.api.body import read_body
from finetune.serve.api.completions import CHAT, COMPLETION, answer
from finetune.serve.api.cors import Cors
from finetune.serve.api.document import URL, describe_app
from finetune.serve.api.embeddings import EmbeddingsRequest, embed_texts
from finetune.serve.api.facts import facts_of
from finetune.serve.api.keys import ApiKey, KeyRing
from finetune.serve.api.label_scores import score_labels
from finetune.serve.api.labels import classify
from finetune.serve.api.limits import Limits
from finetune.serve.api.metrics import Metrics
from finetune.serve.api.operations import add_operations, find_model
from finetune.serve.api.page import page_response
from finetune.serve.api.problem import ApiError
from finetune.serve.api.request_fields import parse_request
from finetune.serve.api.request_log import RequestLog
from finetune.serve.api.responses import ResponsesRequest, respond
from finetune.serve.api.schema import ChatRequest, ClassifyRequest, CompletionRequest
from finetune.serve.engine.classifier import Classifier
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.kinds import AnyEngine


def create_app(engine: AnyEngine, options: ServeOptions, keys: Sequence[ApiKey] = ()) -> FastAPI:
    """The ASGI application for an engine."""
    app = FastAPI(
        title="slmtune",
        version=__version__,
        openapi_url=None,  # it is served below; the pages that FastAPI shows it on load scripts from other sites
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    app.state.deadline = options.deadline
    limits = Limits(options.requests_per_minute, options.concurrency)
    clients, admins = ([key for key in keys if key.is_admin is kind] for kind in (False, True))
    app.add_middleware(
        Gate,
        keys=KeyRing(clients) if clients else None,
        admin_keys=KeyRing(admins),
        host=options.host,
        limits=limits,
    )
    if options.cors_origins:  # outside the gate: a browser asks for permission without the key
        app.add_middleware(
            Cors,
            allow_origins=options.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=("x-request-id", "retry-after"),
        )
    app.state.metrics = metrics = Metrics(engine)
    # The last one added is the outermost.
    app.add_middleware(RequestLog, with_text=options.log_prompts, count=metrics.count)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ApiError, _on_api_error)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation."""
        body = parse_request(ChatRequest, await read_body(request))
        messages = [message.to_message() for message in body.messages]
        generator = _generator(engine, request, body.model)
        facts_of(request).add_prompt([message.model_dump() for message in body.messages])
        return await answer(generator, request, body, CHAT, lambda: generator.encode_chat(messages))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        """Continue a text."""
        body = parse_request(CompletionRequest, await read_body(request))
        generator = _generator(engine, request, body.model)
        facts_of(request).add_prompt(body.prompt)
        return await answer(generator, request, body, COMPLETION, lambda: generator.encode_text(body.prompt))

    @app.post("/v1/responses")
    async def responses(request: Request) -> Response:
        """Answer a conversation in the form of OpenAI's responses."""
        body = parse_request(ResponsesRequest, await read_body(request))
        return await respond(_generator(engine, request, body.model), request, body)

    @app.post("/v1/classify")
    async def labels(request: Request) -> Response:
        """Label texts, or find answers in contexts."""
        body = parse_request(ClassifyRequest, await read_body(request))
        facts_of(request).model = find_model(engine, body.model).id
        facts_of(request).add_prompt(body.input)
        if isinstance(engine, Classifier):
            return await classify(engine, request, body)
        return await score_labels(engine, request, body)

    @app.post("/v1/embeddings")
    async def embeddings(request: Request) -> Response:
        """Turn texts into vectors, with an encoder."""
        body = parse_request(EmbeddingsRequest, await read_body(request))
        facts_of(request).model = find_model(engine, body.model).id
        facts_of(request).add_prompt(body.input)
        if isinstance(engine, Classifier):
            return await embed_texts(engine, request, body)
        message = f"{body.model} writes text; only encoders have embeddings. Serve an adapter of an encoder"
        raise ApiError(400, message, param="model")

    @app.get("/")
    async def page() -> Response:
        """Show the page on which people compare the models."""
        return page_response()

    add_operations(app, engine, metrics)
    if options.adapter_dir is not None and admins:
        add_admin(app, engine, options.adapter_dir)

    @app.get(URL)
    async def openapi() -> Response:
        """Describe all routes as OpenAPI does."""
        return JSONResponse(describe_app(app, list(engine.served)))

    return app


def _generator(engine: AnyEngine, request: Request, name: str) -> Engine:
    facts_of(request).model = find_model(engine, name).id
    if isinstance(engine, Classifier):
        raise ApiError(
            400,
            f"{name} is an encoder, which labels texts or finds answers in them, but writes none. Use POST /v1/classify",
            param="model",
        )
    return engine


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Answer requests with an unknown path or method."""
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {})).response()


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()
