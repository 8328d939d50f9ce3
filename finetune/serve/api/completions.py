"""Answers to chat and text completions: whole, or as a stream of server-sent events."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import InputError, SlmtuneError
from finetune.serve.api.facts import facts_of
from finetune.serve.api.problem import ApiError, api_error
from finetune.serve.api.reply import EventStream, Reply
from finetune.serve.api.schema import GenerationRequest, Usage
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import GenerationParams, Piece, TokenScore

DONE = "data: [DONE]\n\n"


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
    scores: Callable[[Sequence[TokenScore], int], dict[str, Any]]  # tokens, and the characters before them


def _chat_scores(tokens: Sequence[TokenScore], start: int) -> dict[str, Any]:
    def entry(text: str, logprob: float) -> dict[str, Any]:
        # A part of a character is shown as a replacement, whose bytes would be wrong.
        return {"token": text, "logprob": logprob, "bytes": None if "\ufffd" in text else list(text.encode())}

    content = [
        {**entry(token.text, token.logprob), "top_logprobs": [entry(text, logprob) for _, text, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


def _text_scores(tokens: Sequence[TokenScore], start: int) -> dict[str, Any]:
    return {
        "tokens": [token.text for token in tokens],
        "token_logprobs": [token.logprob for token in tokens],
        "top_logprobs": [{text: logprob for _, text, logprob in token.top} for token in tokens],
        "text_offset": [start + _length(tokens[:number]) for number in range(len(tokens))],
    }


def _length(tokens: Sequence[TokenScore]) -> int:
    return sum(len(token.text) for token in tokens)


CHAT = Form(
    "chatcmpl-",
    "chat.completion",
    "chat.completion.chunk",
    "messages",
    opening={"delta": {"role": "assistant", "content": ""}},
    whole=lambda text: {"message": {"role": "assistant", "content": text, "refusal": None}},
    delta=lambda text: {"delta": {"content": text} if text else {}},
    scores=_chat_scores,
)
COMPLETION = Form(
    "cmpl-",
    "text_completion",
    "text_completion",
    "prompt",
    opening=None,
    whole=lambda text: {"text": text},
    delta=lambda text: {"text": text},
    scores=_text_scores,
)


async def answer(
    engine: Engine, request: Request, body: GenerationRequest, form: Form, encode: Callable[[], list[int]]
) -> Response:
    """Answer a prompt, which `encode` turns into tokens, in the form that the request asks for.

    Raises:
        ApiError: the request cannot be served.
    """
    try:
        prompt = await run_in_threadpool(encode)
        params = await run_in_threadpool(settings_of, engine, request, body)
        reply = Reply(engine, prompt, params, body.model, facts_of(request))
        if body.stream:
            return EventStream(reply, _events(reply, form, body))
        drafts = await reply.drafts(request)
    except SlmtuneError as error:
        raise api_error(error, form.prompt_field) from None
    choices = [
        {
            "index": number,
            **form.whole(draft.text),
            "logprobs": form.scores(draft.tokens, 0) if body.score_count is not None else None,
            "finish_reason": reply.results[number].finish_reason,
        }
        for number, draft in enumerate(drafts)
    ]
    return JSONResponse(
        {**head_of(form.id_prefix, form.object, body.model), "choices": choices, "usage": usage_of(reply)}
    )


def settings_of(engine: Engine, request: Request, body: GenerationRequest) -> list[GenerationParams]:
    """How to sample each answer that a request asks for; their seeds follow on each other.

    Raises:
        ApiError: 400; all answers together may be longer than the context, or their form cannot be used.
    """
    params, count = body.params(facts_of(request).client), body.n or 1
    params = replace(params, deadline=request.app.state.deadline)
    if count > 1 and params.max_tokens is not None and count * params.max_tokens > engine.context:
        message = (
            f"n times max_tokens is {count * params.max_tokens}, which is more than the {engine.context} tokens allowed"
        )
        raise ApiError(400, message, param="n")
    grammar = body.grammar()
    try:
        first = None if grammar is None else engine.constraints.compile(grammar)
    except InputError as error:
        raise ApiError(400, str(error), param=body.form_field) from None
    seeds = [None if params.seed is None else params.seed + number for number in range(count)]
    return [replace(params, seed=seed, constraint=None if first is None else first.copy()) for seed in seeds]


async def _events(reply: Reply, form: Form, body: GenerationRequest) -> AsyncIterator[str]:
    """Server-sent events: the role, the text, the reason for its end, optionally the token counts, and `[DONE]`."""
    head = head_of(form.id_prefix, form.chunk_object, reply.model)
    no_usage = {"usage": None} if body.with_usage else {}
    lengths = [0] * reply.count  # characters of the tokens that were sent

    def chunk(
        number: int, content: dict[str, Any], tokens: Sequence[TokenScore] = (), finish_reason: str | None = None
    ) -> str:
        scores = form.scores(tokens, lengths[number]) if tokens else None
        lengths[number] += _length(tokens)
        choice = {"index": number, **content, "logprobs": scores, "finish_reason": finish_reason}
        return event_of({**head, "choices": [choice], **no_usage})

    for number in range(reply.count if form.opening is not None else 0):
        yield chunk(number, form.opening or {})
    try:
        async for number, event in reply.events():
            if isinstance(event, Piece):
                yield chunk(number, form.delta(event.text), event.tokens)
            else:
                yield chunk(number, form.delta(""), finish_reason=event.finish_reason)
    except SlmtuneError as error:
        yield event_of(api_error(error).body())  # the status line has been sent
        return
    if body.with_usage:
        yield event_of({**head, "choices": [], "usage": usage_of(reply)})
    yield DONE


def head_of(prefix: str, kind: str, model: str) -> dict[str, Any]:
    """The fields that every answer and every chunk of it have."""
    return {"id": prefix + uuid.uuid4().hex, "object": kind, "created": int(time.time()), "model": model}


def event_of(data: dict[str, Any]) -> str:
    """A server-sent event."""
    return f"data: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"


def usage_of(reply: Reply) -> dict[str, Any]:
    """The tokens of a prompt and all its answers."""
    return Usage.of(list(reply.results.values())).model_dump()
