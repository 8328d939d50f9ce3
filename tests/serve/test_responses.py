"""POST /v1/responses with the official client, whole and streamed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from finetune.models.load import LoadedModel

from .conftest import Running, hello, running

PATH = "/v1/responses"
GREEDY: dict[str, Any] = {"model": "tiny", "temperature": 0, "max_output_tokens": 8}


@pytest.fixture
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def test_a_response_says_what_the_chat_says(server: Running, client: openai.OpenAI) -> None:
    messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "hello"}]
    chat = server.ask("POST", "/v1/chat/completions", hello(messages=messages, temperature=0, max_tokens=8)).data
    response = client.responses.create(input="hello", instructions="Be brief.", **GREEDY)
    assert response.output_text == chat["choices"][0]["message"]["content"]
    assert response.usage is not None
    assert response.usage.input_tokens == chat["usage"]["prompt_tokens"]
    assert response.usage.output_tokens == chat["usage"]["completion_tokens"]
    assert (response.status, response.object, response.model) == ("incomplete", "response", "tiny")
    assert response.incomplete_details is not None
    assert response.incomplete_details.reason == "max_output_tokens"
    parts: Any = [
        {"type": "message", "role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "hel"}, {"type": "input_text", "text": "lo"}]},
    ]
    assert client.responses.create(input=parts, **GREEDY).output_text == response.output_text


def test_the_official_client_follows_the_events_of_a_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(input="hello", **GREEDY)
    with client.responses.stream(input="hello", **GREEDY) as stream:
        events = list(stream)
    assert [event.type for event in events[:4]] == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
    ]
    deltas = [event.delta for event in events if event.type == "response.output_text.delta"]
    assert "".join(deltas) == whole.output_text
    assert [event.type for event in events[-4:]] == [
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    last = events[-1]
    assert last.type == "response.incomplete"
    assert last.response.output_text == whole.output_text
    assert last.response.usage is not None
    assert whole.usage is not None
    assert last.response.usage.total_tokens == whole.usage.total_tokens
    assert [event.sequence_number for event in client.responses.create(input="hello", stream=True, **GREEDY)] == list(
        range(6 + len(deltas) + 2)
    )


def test_an_answer_that_ends_by_itself_is_complete_and_parsed(client: openai.OpenAI) -> None:
    class Verdict(BaseModel):
        is_up: bool

    response = client.responses.parse(
        model="tiny", input="hello", temperature=0, max_output_tokens=64, text_format=Verdict
    )
    assert response.status == "completed"
    assert isinstance(response.output_parsed, Verdict)
    with client.responses.stream(model="tiny", input="hello", max_output_tokens=64, text_format=Verdict) as stream:
        final = stream.get_final_response()
    assert isinstance(final.output_parsed, Verdict)


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"previous_response_id": "resp_1"}, "previous_response_id"),
        ({"background": True}, "background"),
        ({"tools": [{"type": "web_search"}]}, "tools"),
        ({"max_output_tokens": 0}, "max_output_tokens"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "x"}}}}, "text.format"),
        ({"max_tokens": 5}, "max_tokens"),
    ],
)
def test_a_field_that_cannot_be_served_is_named(server: Running, fields: dict[str, Any], param: str) -> None:
    answer = server.ask("POST", PATH, {"model": "tiny", "input": "hello", **fields})
    assert (answer.status, answer.error["param"]) == (400, param)


def test_more_tokens_than_the_context_holds_are_refused(server: Running) -> None:
    answer = server.ask("POST", PATH, {"model": "tiny", "input": "hello", "max_output_tokens": 600})
    assert (answer.status, answer.error["param"], answer.error["code"]) == (400, "input", "context_length_exceeded")


def test_a_failing_model_ends_a_stream_with_its_event(loaded: LoadedModel, make_engine: Any) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("hidden")

    engine = make_engine()
    loaded.model.register_forward_pre_hook(fail)
    with running(engine) as server:
        stream = server.ask("POST", PATH, {"model": "tiny", "input": "hello", "stream": True}).text
    assert stream.strip().split("\n\n")[-1].startswith("event: response.failed\n")
    data = json.loads(stream.strip().splitlines()[-1].removeprefix("data: "))
    assert data["response"]["status"] == "failed"
    assert "hidden" not in stream
