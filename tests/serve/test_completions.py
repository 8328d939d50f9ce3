"""Several answers, log-probabilities, and the exact form of streams: tests/serve/golden has one of each kind."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from .conftest import Running, hello

CHAT = "/v1/chat/completions"
TEXT = "/v1/completions"
GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture(scope="module")
def client(server: Running) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        yield client


def text_request(**fields: object) -> dict[str, object]:
    return {"model": "tiny", "prompt": "The bank", "max_tokens": 4, "temperature": 0, **fields}


def events(text: str) -> list[dict[str, Any]]:
    *chunks, done = text.strip().split("\n\n")
    assert done == "data: [DONE]"
    return [json.loads(chunk.removeprefix("data: ")) for chunk in chunks]


def test_several_answers_have_their_own_seeds_and_share_the_prompt(server: Running) -> None:
    one = [server.ask("POST", CHAT, hello(seed=seed)).data for seed in (7, 8, 9)]
    three = server.ask("POST", CHAT, hello(seed=7, n=3)).data
    assert [choice["index"] for choice in three["choices"]] == [0, 1, 2]
    texts = [choice["message"]["content"] for choice in three["choices"]]
    assert texts == [answer["choices"][0]["message"]["content"] for answer in one]
    assert len(set(texts)) == 3
    assert three["usage"]["prompt_tokens"] == one[0]["usage"]["prompt_tokens"]
    assert three["usage"]["completion_tokens"] == sum(answer["usage"]["completion_tokens"] for answer in one)


def test_several_streamed_answers_are_told_apart_by_their_index(server: Running) -> None:
    whole = server.ask("POST", CHAT, hello(seed=7, n=2)).data
    body = hello(seed=7, n=2, stream=True, stream_options={"include_usage": True})
    *chunks, usage = events(server.ask("POST", CHAT, body).text)
    for choice in whole["choices"]:
        mine = [c["choices"][0] for c in chunks if c["choices"][0]["index"] == choice["index"]]
        assert mine[0]["delta"]["role"] == "assistant"
        assert "".join(one["delta"].get("content", "") for one in mine) == choice["message"]["content"]
        assert [one["finish_reason"] for one in mine if one["finish_reason"]] == [choice["finish_reason"]]
    assert (usage["choices"], counts(usage)) == ([], counts(whole))


def counts(answer: dict[str, Any]) -> list[int]:
    """Its tokens, without how many were in the cache."""
    return [answer["usage"][name] for name in ("prompt_tokens", "completion_tokens", "total_tokens")]


def test_usage_says_how_much_of_a_prompt_was_in_the_cache(server: Running) -> None:
    system = {"role": "system", "content": "Rules of the house, " * 9}
    bodies = [hello(messages=[system, {"role": "user", "content": text}], max_tokens=2) for text in ("one", "two")]
    first, second = (server.ask("POST", CHAT, body).data["usage"] for body in bodies)
    before, after = (usage["prompt_tokens_details"]["cached_tokens"] for usage in (first, second))
    assert 0 <= before < first["prompt_tokens"] / 2 < after < second["prompt_tokens"]


def test_chat_has_log_probabilities_of_tokens_and_alternatives(client: openai.OpenAI) -> None:
    messages: Any = [{"role": "user", "content": "hello"}]
    settings: Any = {"model": "tiny", "messages": messages, "max_tokens": 4, "temperature": 0}
    answer = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3)
    [choice] = answer.choices
    assert choice.logprobs is not None
    assert choice.logprobs.content is not None
    assert answer.usage is not None
    assert len(choice.logprobs.content) == answer.usage.completion_tokens
    for token in choice.logprobs.content:
        assert len(token.top_logprobs) == 3
        assert token.logprob == token.top_logprobs[0].logprob == max(one.logprob for one in token.top_logprobs)
        assert token.bytes in (None, list(token.token.encode()))
    bare = client.chat.completions.create(**settings, logprobs=True)
    assert bare.choices[0].logprobs is not None
    assert [token.top_logprobs for token in bare.choices[0].logprobs.content or ()] == [[]] * 4
    chunks = list(client.chat.completions.create(**settings, logprobs=True, top_logprobs=3, stream=True))
    scores = [chunk.choices[0].logprobs for chunk in chunks]
    streamed = [token.to_dict() for one in scores if one is not None for token in one.content or ()]
    assert streamed == [token.to_dict() for token in choice.logprobs.content]


def test_text_completions_have_log_probabilities_in_their_own_form(client: openai.OpenAI) -> None:
    settings: Any = {"model": "tiny", "prompt": "The bank", "max_tokens": 4, "temperature": 0, "logprobs": 2}
    [choice] = client.completions.create(**settings).choices
    scores = choice.logprobs
    assert scores is not None
    assert scores.tokens is not None
    assert scores.token_logprobs is not None
    assert [len(top) for top in scores.top_logprobs or ()] == [2] * 4
    assert all(value <= 0 and math.isfinite(value) for value in scores.token_logprobs)
    assert scores.text_offset == [sum(map(len, scores.tokens[:number])) for number in range(4)]
    parts = [one.choices[0].logprobs for one in client.completions.create(**settings, stream=True)]
    assert [token for part in parts if part is not None for token in part.tokens or ()] == scores.tokens
    assert [at for part in parts if part is not None for at in part.text_offset or ()] == scores.text_offset


def test_without_a_request_there_are_no_log_probabilities(server: Running) -> None:
    assert server.ask("POST", CHAT, hello()).data["choices"][0]["logprobs"] is None
    assert server.ask("POST", TEXT, text_request()).data["choices"][0]["logprobs"] is None


STREAMS: dict[str, tuple[str, dict[str, object]]] = {
    "chat": (CHAT, hello(temperature=0, stream=True)),
    "chat-usage": (CHAT, hello(temperature=0, stream=True, stream_options={"include_usage": True})),
    "chat-two": (CHAT, hello(temperature=0, max_tokens=1, n=2, stream=True)),
    "chat-logprobs": (CHAT, hello(temperature=0, max_tokens=1, logprobs=True, top_logprobs=1, stream=True)),
    "chat-stop": (CHAT, hello(temperature=0, max_tokens=1, stop=["\n"], stream=True)),
    "text": (TEXT, text_request(stream=True)),
    "text-usage": (TEXT, text_request(max_tokens=1, stream=True, stream_options={"include_usage": True})),
    "responses": (
        "/v1/responses",
        {"model": "tiny", "input": "hello", "max_output_tokens": 1, "temperature": 0, "stream": True},
    ),
    "text-logprobs": (TEXT, text_request(max_tokens=1, logprobs=1, stream=True)),
}


def masked(stream: str) -> str:
    """A stream without what differs between runs or models: ids, times, cache hits, texts, chunks, and probabilities."""
    for pattern, mask in (
        (r'"(id|item_id)":"(\w+[-_])[0-9a-f]{32}"', r'"\1":"\2…"'),
        (r'"(created|created_at|cached_tokens)":\d+', r'"\1":0'),
        (r'"(content|text|token|delta)":"(?:[^"\\]|\\.)+"', r'"\1":"…"'),
        (r'"bytes":(null|\[[\d,]*\])', '"bytes":[]'),
        (r'"logprob":-?[\d.e-]+', '"logprob":0'),
        (r'"tokens":\["(?:[^"\\]|\\.)*"\],"token_logprobs":\[[^\]]*\],"top_logprobs":\[\{[^}]*\}\]',
         '"tokens":["…"],"token_logprobs":[0],"top_logprobs":[{"…":0}]'),
    ):  # fmt: skip
        stream = re.sub(pattern, mask, stream)
    events = sorted(
        stream.split("\n\n")[:-1], key=lambda event: ("[DONE]" in event, '"index":1' in event)
    )  # answers may overlap in time
    return "\n\n".join(event for event, _ in itertools.groupby(events)) + "\n"


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_has_the_form_of_the_golden_file(server: Running, name: str) -> None:
    path, body = STREAMS[name]
    answer = server.ask("POST", path, body)
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert masked(answer.text) == (GOLDEN / f"{name}.sse").read_text("utf-8")
