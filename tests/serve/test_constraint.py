"""Answers of a random model follow a schema, an expression or a list of choices, and what cannot be followed is refused."""

from __future__ import annotations

import json
import re
import socket
import time
from typing import Any

import openai
import pytest
from pydantic import BaseModel

from finetune.errors import InputError
from finetune.serve.engine.constraint import json_grammar, regex_grammar
from finetune.serve.engine.engine import Engine

from .conftest import Running, hello

CHAT = "/v1/chat/completions"
SCHEMA = {
    "type": "object",
    "properties": {"label": {"enum": ["up", "down"]}, "score": {"type": "integer", "minimum": 0, "maximum": 9}},
    "required": ["label", "score"],
    "additionalProperties": False,
}


def json_format(schema: object) -> dict[str, object]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": schema}}}


def ask(server: Running, **fields: object) -> dict[str, Any]:
    answer = server.ask("POST", CHAT, hello(max_tokens=64, **fields))
    assert answer.status == 200
    choice: dict[str, Any] = answer.data["choices"][0]
    return choice


@pytest.mark.parametrize("temperature", [0, 1.5])
def test_an_answer_follows_its_schema(server: Running, temperature: float) -> None:
    for seed in range(3):
        choice = ask(server, temperature=temperature, seed=seed, **json_format(SCHEMA))
        data = json.loads(choice["message"]["content"])
        assert set(data) == {"label", "score"}
        assert (data["label"] in ("up", "down"), data["score"] in range(10)) == (True, True)
        assert choice["finish_reason"] == "stop"


def test_the_official_client_parses_an_answer_into_a_class(server: Running) -> None:
    class Verdict(BaseModel):
        is_up: bool
        size: int

    messages: Any = [{"role": "user", "content": "hello"}]
    with openai.OpenAI(base_url=f"{server.url}/v1", api_key="unused", max_retries=0) as client:
        answer = client.chat.completions.parse(
            model="tiny", messages=messages, response_format=Verdict, max_tokens=200, temperature=0
        )
    if answer.choices[0].finish_reason == "stop":
        assert isinstance(answer.choices[0].message.parsed, Verdict)


@pytest.mark.parametrize("path", [CHAT, "/v1/completions"])
def test_an_answer_follows_an_expression_or_is_one_of_the_choices(server: Running, path: str) -> None:
    pattern, choices = r"[A-C]{2}-\d{3}", ['ja, "gut"', "nein\n", "é👍"]
    prompt: dict[str, Any] = {"prompt": "hello", "messages": None} if path != CHAT else {}
    for seed in range(3):
        for form, allowed in (
            ({"regex": pattern}, lambda text: re.fullmatch(pattern, text)),
            ({"choice": choices}, lambda text: text in choices),
            ({"json": SCHEMA}, json.loads),
        ):
            body = hello(structured_outputs=form, seed=seed, max_tokens=64, **prompt)
            choice = server.ask("POST", path, body).data["choices"][0]
            assert allowed(choice.get("text") or choice["message"]["content"])
            assert choice["finish_reason"] == "stop"


def test_several_answers_each_follow_the_form_and_a_stream_does_too(server: Running) -> None:
    form = {"regex": r"[0-9]{4}"}
    many = server.ask("POST", CHAT, hello(structured_outputs=form, n=3, max_tokens=32)).data["choices"]
    assert all(re.fullmatch(r"\d{4}", choice["message"]["content"]) for choice in many)
    assert len({choice["message"]["content"] for choice in many}) > 1
    stream = server.ask("POST", CHAT, hello(structured_outputs=form, stream=True, max_tokens=32)).text
    assert re.fullmatch(r"\d{4}", "".join(re.findall(r'"content":"(\d+)"', stream)))


def test_an_answer_that_is_cut_off_begins_as_its_form_says(server: Running) -> None:
    answer = server.ask("POST", CHAT, hello(structured_outputs={"regex": r"[0-9]{50}"}, max_tokens=3))
    choice = answer.data["choices"][0]
    assert choice["finish_reason"] == "length"
    assert choice["message"]["content"].isdigit()


def test_any_json_object_is_one_object(server: Running) -> None:
    for seed in range(3):
        choice = ask(server, seed=seed, response_format={"type": "json_object"})
        assert choice["message"]["content"].startswith("{")
        if choice["finish_reason"] == "stop":
            assert isinstance(json.loads(choice["message"]["content"]), dict)


def nested(levels: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "string"}
    for _ in range(levels):
        schema = {"type": "array", "items": schema}
    return schema


@pytest.mark.parametrize(
    ("fields", "param", "reason"),
    [
        (json_format({"type": "array", "uniqueItems": True}), "response_format", "uniqueItems"),
        (json_format({"type": "strnig"}), "response_format", "cannot be used"),
        (json_format({"type": "string", "minLength": 5, "maxLength": 2}), "response_format", "nsatisfiable"),
        (json_format(nested(40)), "response_format", "16 levels"),
        (json_format({"enum": ["x" * 200 + str(number) for number in range(100)]}), "response_format", "16384"),
        ({"structured_outputs": {"regex": "[a-z"}}, "structured_outputs", "cannot be used"),
        ({"structured_outputs": {"json": {"type": 5}}}, "structured_outputs", "cannot be used"),
    ],
)
def test_a_form_that_cannot_be_followed_is_refused_by_name(
    server: Running, fields: dict[str, Any], param: str, reason: str
) -> None:
    answer = server.ask("POST", CHAT, hello(**fields))
    assert (answer.status, answer.error["param"]) == (400, param)
    assert reason in answer.error["message"]
    assert len(answer.text) < 1000


@pytest.mark.parametrize(
    "grammar",
    [
        regex_grammar(r"((a?){500}){500}b"),
        regex_grammar(r"(.*a.{300}){50}"),
        regex_grammar(r"[ab]*a[ab]{4000}"),
        json_grammar({"type": "object", "properties": {f"p{n}": {"pattern": "^(a|b)*a.{50}$"} for n in range(300)}}),
    ],
)
def test_an_expensive_grammar_takes_little_time(engine: Engine, grammar: str) -> None:
    engine.constraints.compile(regex_grammar("a"))  # the first one reads the vocabulary
    started = time.monotonic()
    try:
        constraint = engine.constraints.compile(grammar)
        for token in constraint.allowed().nonzero().flatten().tolist()[:1]:
            constraint.accept(token)
            constraint.allowed()
    except InputError:
        pass  # refused is fine, too
    assert time.monotonic() - started < 5  # slow machines included


def test_a_schema_that_names_a_url_is_refused_without_a_request(server: Running) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        other.settimeout(0.2)
        url = f"http://127.0.0.1:{other.getsockname()[1]}/schema.json"
        assert server.ask("POST", CHAT, hello(**json_format({"$ref": url}))).status == 400
        with pytest.raises(TimeoutError):
            other.accept()
