"""POST /v1/responses: the newer form of a conversation in the API of OpenAI, for text; nothing is stored."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from finetune.errors import SlmtuneError
from finetune.serve.api.answer_form import TextFormat
from finetune.serve.api.completions import settings_of, usage_of
from finetune.serve.api.facts import facts_of
from finetune.serve.api.problem import ApiError, api_error
from finetune.serve.api.reply import EventStream, Reply
from finetune.serve.api.request_fields import RequestPart
from finetune.serve.api.schema import INT64, MAX_MESSAGES, MAX_NAME, ChatMessage, ChatRequest
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import Piece


def _as_messages(value: object) -> object:
    return [{"role": "user", "content": value}] if isinstance(value, str) else value


class TextSettings(RequestPart):
    """The form of the answer."""

    format: TextFormat = TextFormat(type="text")


class ResponsesRequest(RequestPart):
    """Body of POST /v1/responses: a text or messages. `instructions` are a system message before them."""

    model: str = Field(min_length=1, max_length=MAX_NAME)
    input: Annotated[
        list[ChatMessage], BeforeValidator(_as_messages, json_schema_input_type=str | list[ChatMessage])
    ] = Field(min_length=1, max_length=MAX_MESSAGES)
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1, lt=INT64)
    temperature: float | None = Field(None, ge=0, le=2, allow_inf_nan=False)
    top_p: float | None = Field(None, gt=0, le=1, allow_inf_nan=False)
    text: TextSettings = TextSettings()
    stream: bool | None = None

    def to_chat(self) -> ChatRequest:
        """The same as a chat completion."""
        system = [] if self.instructions is None else [ChatMessage(role="system", content=self.instructions)]
        return ChatRequest(
            model=self.model,
            messages=[*system, *self.input],
            max_tokens=self.max_output_tokens,
            temperature=self.temperature,
            top_p=self.top_p,
            response_format=self.text.format.to_response_format(),
        )


async def respond(engine: Engine, request: Request, body: ResponsesRequest) -> Response:
    """Answer a conversation.

    Raises:
        ApiError: the request cannot be served.
    """
    chat = body.to_chat()
    messages = [message.to_message() for message in chat.messages]
    facts_of(request).add_prompt([message.model_dump() for message in chat.messages])
    try:
        prompt = await run_in_threadpool(engine.encode_chat, messages)
        params = await run_in_threadpool(settings_of, engine, request, chat)
        reply = Reply(engine, prompt, params, body.model, facts_of(request))
        draft = _Response(body)
        if body.stream:
            return EventStream(reply, _events(reply, draft))
        [answer] = await reply.drafts(request)
    except SlmtuneError as error:
        raise api_error(error, "input") from None
    except ApiError as error:  # of the form, which has another name in a chat
        raise ApiError(error.status, error.message, param="text.format") from None
    return JSONResponse(draft.end(answer.text, reply))


class _Response:
    """A response on the wire, from its beginning to its end."""

    def __init__(self, body: ResponsesRequest) -> None:
        self.item_id = f"msg_{uuid.uuid4().hex}"
        self._body: dict[str, Any] = {
            "id": f"resp_{uuid.uuid4().hex}",
            "object": "response",
            "created_at": int(time.time()),
            "model": body.model,
            "instructions": body.instructions,
            "max_output_tokens": body.max_output_tokens,
            "temperature": 1.0 if body.temperature is None else body.temperature,
            "top_p": 1.0 if body.top_p is None else body.top_p,
            "text": {"format": body.text.format.model_dump(by_alias=True, exclude_none=True)},
            "background": False,
            "error": None,
            "incomplete_details": None,
            "metadata": {},
            "parallel_tool_calls": False,
            "previous_response_id": None,
            "store": False,
            "tool_choice": "none",
            "tools": [],
            "truncation": "disabled",
        }

    def begin(self) -> dict[str, Any]:
        """The response before its answer."""
        return {**self._body, "status": "in_progress", "output": [], "usage": None}

    def fail(self, error: SlmtuneError) -> dict[str, Any]:
        """The response whose answer failed."""
        problem = {"code": "server_error", "message": api_error(error).message}
        return {**self._body, "status": "failed", "output": [], "usage": None, "error": problem}

    def end(self, text: str, reply: Reply) -> dict[str, Any]:
        """The whole response."""
        usage, status = usage_of(reply), status_of(reply)
        return {
            **self._body,
            "status": status,
            "incomplete_details": None if status == "completed" else {"reason": "max_output_tokens"},
            "output": [self.item(status, [part_of(text)])],
            "usage": {
                "input_tokens": usage["prompt_tokens"],
                "input_tokens_details": {**usage["prompt_tokens_details"], "cache_write_tokens": 0},
                "output_tokens": usage["completion_tokens"],
                "output_tokens_details": {"reasoning_tokens": 0},
                "total_tokens": usage["total_tokens"],
            },
        }

    def item(self, status: str, content: list[dict[str, Any]]) -> dict[str, Any]:
        """The message in the output."""
        return {"id": self.item_id, "type": "message", "role": "assistant", "status": status, "content": content}


def part_of(text: str) -> dict[str, Any]:
    """The text in a message."""
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": []}


def status_of(reply: Reply) -> Literal["completed", "incomplete"]:
    """Whether the answer ended by itself."""
    return "completed" if reply.results[0].finish_reason == "stop" else "incomplete"


async def _events(reply: Reply, draft: _Response) -> AsyncIterator[str]:
    """Server-sent events as the official clients parse them: the message grows in the only part of the only output."""
    number = 0

    def event(kind: str, **fields: Any) -> str:
        nonlocal number
        data = {"type": kind, "sequence_number": number, **fields}
        number += 1
        return f"event: {kind}\ndata: {json.dumps(data, ensure_ascii=False, separators=(',', ':'))}\n\n"

    place = {"output_index": 0, "item_id": draft.item_id, "content_index": 0}
    yield event("response.created", response=draft.begin())
    yield event("response.in_progress", response=draft.begin())
    yield event("response.output_item.added", output_index=0, item=draft.item("in_progress", []))
    yield event("response.content_part.added", **place, part=part_of(""))
    text = ""
    try:
        async for _, piece in reply.events():
            if isinstance(piece, Piece) and piece.text:
                text += piece.text
                yield event("response.output_text.delta", **place, delta=piece.text, logprobs=[])
    except SlmtuneError as error:
        yield event("response.failed", response=draft.fail(error))  # the status line has been sent
        return
    status = status_of(reply)
    yield event("response.output_text.done", **place, text=text, logprobs=[])
    yield event("response.content_part.done", **place, part=part_of(text))
    yield event("response.output_item.done", output_index=0, item=draft.item(status, [part_of(text)]))
    yield event(f"response.{status}", response=draft.end(text, reply))
