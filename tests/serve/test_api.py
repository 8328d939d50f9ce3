"""The real server in a separate process, and the real `openai` client."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

from finetune.artifacts import Adapter
from finetune.models.chat_template import render_prompt
from finetune.models.load import LoadedModel, load_adapter
from finetune.records import Message

from ..command import ROOT, Command, python_words
from .conftest import KEY

PROGRAM = """
import sys
from pathlib import Path
from finetune.hub.settings import configure_libraries
configure_libraries()
from finetune.recipe.options import ServeOptions
from finetune.serve import ApiKey, ServeTarget, serve
key, *targets = sys.argv[1:]
named = [target.partition("=") for target in targets]
signal = serve(
    [ServeTarget(name, Path(path)) for name, _, path in named],
    ServeOptions(port=0), keys=[ApiKey("test", key)], on_ready=lambda url: print(url, flush=True),
)
print("ended by signal", signal)
"""
MESSAGES: Any = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Did profit rise? 👍"}]
GREEDY: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


@pytest.fixture(scope="module")
def url(two_adapters: dict[str, Path]) -> Iterator[str]:
    """A server for both adapters and their base, with a key; SIGTERM must end it cleanly."""
    targets = [f"{name}={path}" for name, path in two_adapters.items()]
    server = Command("-c", PROGRAM, KEY, *targets, cwd=ROOT, main=python_words)
    try:
        assert server.until(lambda: server.stdout.endswith("\n")), server.stderr
        yield server.stdout.strip()
    finally:
        server.send(signal.SIGTERM)
        code = server.wait()
    assert (code, server.stderr) == (0, "")
    assert server.stdout.endswith("ended by signal 15\n")


@pytest.fixture(scope="module")
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{url}/v1", api_key=KEY, max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def health(two_adapters: dict[str, Path]) -> LoadedModel:
    """The adapter as the rest of slmtune loads it."""
    return load_adapter(Adapter.open(two_adapters["health"]))


def raw(url: str, path: str, body: dict[str, Any] | None = None) -> str:
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode() if body else None, headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        return str(response.read().decode())


def test_chat_says_what_the_adapter_generates_and_counts_its_tokens(client: openai.OpenAI, health: LoadedModel) -> None:
    import torch

    prompt = render_prompt(health.tokenizer, [Message(m["role"], m["content"]) for m in MESSAGES])
    ids = torch.tensor([prompt])
    model: Any = health.model
    out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=24)
    new = out[0, len(prompt) :].tolist()

    answer = client.chat.completions.create(model="health", messages=MESSAGES, **GREEDY)
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].message.content == health.tokenizer.decode(new, skip_special_tokens=True)
    assert answer.choices[0].finish_reason == ("length" if new[-1] != 2 else "stop")
    assert (answer.object, answer.model) == ("chat.completion", "health")
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == len(prompt)
    assert answer.usage.completion_tokens == len(new) - (new[-1] == 2)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_adapters_and_base_say_different_things(client: openai.OpenAI, tiny_model: Path) -> None:
    names = ["health", "finance", tiny_model.name]
    said = [client.chat.completions.create(model=name, messages=MESSAGES, **GREEDY) for name in names]
    assert len({answer.choices[0].message.content for answer in said}) == 3


def test_streamed_pieces_join_to_the_whole_answer(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="health", messages=MESSAGES, **GREEDY)
    chunks = list(
        client.chat.completions.create(
            model="health", messages=MESSAGES, stream=True, stream_options={"include_usage": True}, **GREEDY
        )
    )
    first, *middle, last, usage = chunks
    assert (first.choices[0].delta.role, first.choices[0].delta.content) == ("assistant", "")
    assert len(middle) > 1
    assert "".join(chunk.choices[0].delta.content or "" for chunk in middle) == whole.choices[0].message.content
    assert {chunk.choices[0].finish_reason for chunk in (first, *middle)} == {None}
    assert last.choices[0].finish_reason == whole.choices[0].finish_reason
    assert (usage.choices, usage.usage) == ([], whole.usage)
    assert len({chunk.id for chunk in chunks}) == 1


def test_a_stream_is_server_sent_events_that_end_with_done(url: str) -> None:
    body = {"model": "health", "messages": MESSAGES, "stream": True, **GREEDY}
    *events, end = raw(url, "/v1/chat/completions", body).split("\n\n")
    assert end == ""
    assert events[-1] == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events[:-1]]
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert "usage" not in chunks[-1]
    assert chunks[-1]["choices"][0]["delta"] == {}


def test_a_text_is_continued_streamed_or_not(client: openai.OpenAI, health: LoadedModel) -> None:
    prompt = "The bank raised its"
    whole = client.completions.create(model="health", prompt=prompt, **GREEDY)
    pieces = client.completions.create(model="health", prompt=prompt, stream=True, **GREEDY)
    assert "".join(chunk.choices[0].text for chunk in pieces) == whole.choices[0].text != ""
    assert whole.object == "text_completion"
    assert whole.usage is not None
    assert whole.usage.prompt_tokens == len(health.tokenizer(prompt)["input_ids"])


def test_a_stop_string_ends_a_stream_and_is_never_sent(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="health", messages=MESSAGES, **GREEDY).choices[0].message.content
    assert whole is not None
    stop = whole[6:9]
    chunks = list(client.chat.completions.create(model="health", messages=MESSAGES, stop=[stop], stream=True, **GREEDY))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == whole[: whole.index(stop)]
    assert chunks[-1].choices[0].finish_reason == "stop"


def test_a_seed_repeats_a_sample(client: openai.OpenAI) -> None:
    def sample(seed: int) -> str | None:
        answer = client.chat.completions.create(model="health", messages=MESSAGES, max_tokens=16, seed=seed)
        return answer.choices[0].message.content

    assert sample(7) == sample(7) != sample(8)


def test_max_tokens_ends_an_answer_for_its_length(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(model="health", messages=MESSAGES, max_completion_tokens=3, temperature=0)
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 3


def test_text_parts_are_one_text(client: openai.OpenAI) -> None:
    parts: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Did "}, {"type": "text", "text": "profit rise?"}]}
    ]
    plain: Any = [{"role": "user", "content": "Did profit rise?"}]
    said = [client.chat.completions.create(model="health", messages=m, **GREEDY) for m in (parts, plain)]
    assert said[0].choices[0].message.content == said[1].choices[0].message.content


def test_models_name_their_base(client: openai.OpenAI, tiny_model: Path) -> None:
    base = tiny_model.name
    listed = {model.id: model.to_dict() for model in client.models.list()}
    assert set(listed) == {"health", "finance", base}
    assert (listed["health"]["parent"], listed["health"]["root"]) == (base, base)
    assert (listed[base]["parent"], listed[base]["root"]) == (None, base)
    assert client.models.retrieve("health").to_dict() == listed["health"]


def test_an_unknown_model_is_not_found(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        client.chat.completions.create(model="helth", messages=MESSAGES)
    assert (caught.value.code, caught.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("helth")


def test_a_wrong_key_is_refused(url: str) -> None:
    with (
        openai.OpenAI(base_url=f"{url}/v1", api_key=KEY + "x", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError),
    ):
        stranger.models.list()


def test_health_needs_no_key(url: str) -> None:
    with urllib.request.urlopen(f"{url}/health", timeout=30) as response:
        assert json.load(response) == {"status": "ok"}


def test_harmless_fields_are_accepted(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model="health", messages=MESSAGES, user="me", n=1, tools=[], logprobs=False, response_format={"type": "text"},
        presence_penalty=0, metadata={"a": "b"}, **GREEDY,
    )  # fmt: skip
    assert answer.choices[0].message.content
