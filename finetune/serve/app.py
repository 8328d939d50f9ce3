"""The routes, and the form of answers on the wire."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fastapi import FastAPI, Request
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import JSONResponse, Response

from finetune import __version__
from finetune.errors import SlmtuneError
from finetune.recipe.options import ServeOptions
from finetune.serve.auth import Gate
from finetune.serve.body import read_body
from finetune.serve.classifier import Classifier, describe
from finetune.serve.engine import Engine
from finetune.serve.facts import facts_of
from finetune.serve.job import Result
from finetune.serve.keys import ApiKey, KeyRing
from finetune.serve.limits import Limits
from finetune.serve.metrics import Metrics
from finetune.serve.operations import add_operations, find_model
from finetune.serve.page import page_response
from finetune.serve.problem import ApiError, api_error
from finetune.serve.reply import ClassificationReply, EventStream, Reply
from finetune.serve.request_log import RequestLog
from finetune.serve.schema import (
    ChatRequest,
    ClassifyRequest,
    CompletionRequest,
    GenerationRequest,
    Usage,
    parse_request,
)
from finetune.serve.targets import AnyEngine

DONE = "data: [DONE]\n\n"


def create_app(engine: AnyEngine, options: ServeOptions, keys: Sequence[ApiKey] = ()) -> FastAPI:
    """The ASGI application for an engine."""
    app = FastAPI(
        title="slmtune",
        version=__version__,
        openapi_url=None,  # its pages load scripts from other sites
        redirect_slashes=False,
        telemetry={
            "tracing": False,
            "metrics": False,
            "logs": False,
            "operation_spans": False,
            "auto_configure": False,
        },
    )
    limits = Limits(options.requests_per_minute, options.concurrency)
    app.add_middleware(Gate, keys=KeyRing(keys) if keys else None, host=options.host, limits=limits)
    if options.cors_origins:  # outside the gate: a browser asks for permission without the key
        app.add_middleware(
            CORSMiddleware,
            allow_origins=options.cors_origins,
            allow_methods=("GET", "POST"),
            allow_headers=("*",),
            allow_private_network=True,
            expose_headers=("x-request-id", "retry-after"),
        )
    metrics = Metrics(engine)
    app.add_middleware(
        RequestLog, with_text=options.log_prompts, count=metrics.count
    )  # the last one added is the outermost
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(ApiError, _on_api_error)

    @app.post("/v1/chat/completions")
    async def chat_completions(request: Request) -> Response:
        """Answer a conversation."""
        body = parse_request(ChatRequest, await read_body(request))
        messages = [message.to_message() for message in body.messages]
        generator = _generator(engine, request, body.model)
        facts_of(request).add_prompt([message.model_dump() for message in body.messages])
        return await _answer(generator, request, body, CHAT, lambda: generator.encode_chat(messages))

    @app.post("/v1/completions")
    async def completions(request: Request) -> Response:
        """Continue a text."""
        body = parse_request(CompletionRequest, await read_body(request))
        generator = _generator(engine, request, body.model)
        facts_of(request).add_prompt(body.prompt)
        return await _answer(generator, request, body, COMPLETION, lambda: generator.encode_text(body.prompt))

    @app.post("/v1/classify")
    async def classify(request: Request) -> Response:
        """Label texts, or find answers in contexts."""
        body = parse_request(ClassifyRequest, await read_body(request))
        classifier = _classifier(engine, request, body.model)
        facts_of(request).add_prompt(body.input)
        return await _classify(classifier, request, body)

    @app.get("/")
    async def page() -> Response:
        """Show the page on which people compare the models."""
        return page_response()

    add_operations(app, engine, metrics)
    return app


@dataclass(frozen=True)
class Form:
    """The differences between chat and text completions on the wire."""

    id_prefix: str
    object: str
    chunk_object: str
    prompt_field: str
    opening: dict[str, Any] | None  # the first chunk's choice, before any text
    whole: Callable[[str], dict[str, Any]]
    delta: Callable[[str], dict[str, Any]]


CHAT = Form(
    "chatcmpl-",
    "chat.completion",
    "chat.completion.chunk",
    "messages",
    opening={"delta": {"role": "assistant", "content": ""}},
    whole=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    delta=lambda text: {"delta": {"content": text} if text else {}},
)
COMPLETION = Form(
    "cmpl-",
    "text_completion",
    "text_completion",
    "prompt",
    opening=None,
    whole=lambda text: {"text": text},
    delta=lambda text: {"text": text},
)


async def _answer(
    engine: Engine, request: Request, body: GenerationRequest, form: Form, encode: Callable[[], list[int]]
) -> Response:
    try:
        prompt = await run_in_threadpool(encode)
        reply = Reply(engine, prompt, body.params(), body.model, facts_of(request))
        if body.stream:
            return EventStream(reply, _events(reply, form, with_usage=body.with_usage))
        text = await reply.text(request)
    except SlmtuneError as error:
        raise api_error(error, form.prompt_field) from None
    assert reply.result is not None
    choice = {"index": 0, **form.whole(text), "logprobs": None, "finish_reason": reply.result.finish_reason}
    head = _head(form.id_prefix, form.object, body.model)
    return JSONResponse({**head, "choices": [choice], "usage": _usage(reply.result)})


async def _classify(classifier: Classifier, request: Request, body: ClassifyRequest) -> Response:
    try:
        texts = await run_in_threadpool(classifier.encode, body.input)
        result = await ClassificationReply(classifier, texts, body.model).result(request)
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    data = [{"index": number, **describe(row, classifier.head)} for number, row in enumerate(result.rows)]
    usage = Usage(prompt_tokens=result.tokens, completion_tokens=0, total_tokens=result.tokens).model_dump()
    return JSONResponse({**_head("classify-", "list", body.model), "data": data, "usage": usage})


async def _events(reply: Reply, form: Form, *, with_usage: bool) -> AsyncIterator[str]:
    """Server-sent events: the role, the text, the reason for its end, optionally the token counts, and `[DONE]`."""
    head = _head(form.id_prefix, form.chunk_object, reply.model)
    no_usage = {"usage": None} if with_usage else {}

    def chunk(content: dict[str, Any], finish_reason: str | None = None) -> str:
        choice = {"index": 0, **content, "logprobs": None, "finish_reason": finish_reason}
        return _event({**head, "choices": [choice], **no_usage})

    if form.opening is not None:
        yield chunk(form.opening)
    try:
        async for piece in reply.pieces():
            yield chunk(form.delta(piece.text))
    except SlmtuneError as error:
        yield _event(api_error(error).body())  # the status line has been sent
        return
    assert reply.result is not None
    yield chunk(form.delta(""), reply.result.finish_reason)
    if with_usage:
        yield _event({**head, "choices": [], "usage": _usage(reply.result)})
    yield DONE


def _head(prefix: str, kind: str, model: str) -> dict[str, Any]:
    return {"id": prefix + uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": model}


def _event(data: dict[str, Any]) -> str:
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def _usage(result: Result) -> dict[str, int]:
    return Usage.of(result).model_dump()


def _generator(engine: AnyEngine, request: Request, name: str) -> Engine:
    facts_of(request).model = find_model(engine, name).id
    if isinstance(engine, Classifier):
        raise ApiError(
            400,
            f"{name} is an encoder, which labels texts or finds answers in them, but writes none. Use POST /v1/classify",
            param="model",
        )
    return engine


def _classifier(engine: AnyEngine, request: Request, name: str) -> Classifier:
    facts_of(request).model = find_model(engine, name).id
    if isinstance(engine, Classifier):
        return engine
    raise ApiError(400, f"{name} writes text, and only encoders classify. Use POST /v1/chat/completions", param="model")


async def _on_http_exception(request: Request, error: Exception) -> Response:
    """Answer requests with an unknown path or method."""
    assert isinstance(error, HTTPException)
    return ApiError(error.status_code, str(error.detail), headers=dict(error.headers or {})).response()


async def _on_api_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, ApiError)
    return error.response()
