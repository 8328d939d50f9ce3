"""A model behind a URL as a contestant: the server of `slmtune serve`, and servers that misbehave."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError, SlmtuneError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.contestants import chat_server
from finetune.evaluate.contestants.chat_server import find_server
from finetune.evaluate.contestants.rivals import read_key
from finetune.evaluate.contestants.server import ask_server, match_choice, refuse_server
from finetune.records import Example
from finetune.scoring.tasks import EvalTask
from finetune.serve.engine.engine import Engine
from finetune.serve.engine.job import ServedModel

from ..conftest import chat
from ..serve.conftest import load, running

MODELS = {"data": [{"id": "only"}]}
NEWS = EvalTask(
    "news",
    "weighted_f1",
    tuple(
        Example(f"row-{n}", chat(f"Shares {n}?", "bearish"), "classification", "bearish", ("bearish", "bullish"))
        for n in range(6)
    ),
)
Answering = Callable[[int, dict[str, Any]], tuple[int, object]]  # number of the request, body → status, reply


@contextmanager
def serving(answer: Answering, models: object = MODELS, key: str | None = None) -> Iterator[str]:
    """A server on this machine; an answer of bytes is sent as it is, and None closes the connection without one."""
    count, lock = iter(range(1000)), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._send(200, models) if key is None or self._key() == f"Bearer {key}" else self._send(401, {})

        def do_POST(self) -> None:
            assert self.path == "/v1/chat/completions"
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = next(count)
            self._send(*answer(number, body))

        def _key(self) -> str | None:
            return self.headers.get("Authorization")

        def _send(self, status: int, reply: object) -> None:
            if reply is None:
                self.close_connection = True
                return
            data = reply if isinstance(reply, bytes) else json.dumps(reply).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            with suppress(BrokenPipeError):  # the client has gone
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None: ...

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def say(text: str | None, **more: object) -> dict[str, object]:
    """A chat completion."""
    return {"choices": [{"message": {"role": "assistant", "content": text}, **more}]}


@pytest.fixture(autouse=True)
def short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "WAITS", (0.0,) * 5)
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)


def ask(url: str) -> Any:
    return ask_server(find_server(url, None), NEWS, max_new_tokens=8, on_rows=lambda rows: None)


def test_server_is_asked_from_a_running_event_loop() -> None:
    async def in_notebook(url: str) -> Any:
        return ask(url)

    with serving(lambda number, body: (200, say("bearish"))) as url:
        assert asyncio.run(in_notebook(url)) == ask(url)


def test_served_model_answers_as_the_same_model_here(
    tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    engine = Engine(load(tiny_model), [ServedModel("tiny")])
    with running(engine) as server:
        rivals = (f"here={tiny_model}", f"served={server.url}")
        options: dict[str, Any] = {"max_new_tokens": 8, "limit": 5, "few_shot": 0}
        result = evaluate(
            EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "eval", vs=rivals, **options, forgetting=False)
        )
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text("utf-8").splitlines()]
    questions = [sample for sample in samples if sample["task"] == "questions"]
    assert questions
    assert [sample["served"] for sample in questions] == [sample["here"] for sample in questions]
    assert result.tasks["questions"].headline["served"] == result.tasks["questions"].headline["here"]
    assert result.tasks["news"].details["served"].unparsable == 5  # a random model names no label


@pytest.mark.parametrize("text", ["bearish", "Bearish.", " **bearish** ", '"BEARISH"\n', "- bearish"])
def test_label_counts_whatever_its_case_and_the_marks_around_it(text: str) -> None:
    assert match_choice(text, ["bearish", "bullish"]) == "bearish"


@pytest.mark.parametrize("text", ["bearish or bullish", "It is bearish", "bear", "", "neutral"])
def test_anything_else_is_no_label(text: str) -> None:
    assert match_choice(text, ["bearish", "bullish"]) is None


def test_choices_that_differ_only_in_marks_are_told_apart() -> None:
    assert match_choice("c++", ["C", "C++"]) == "C++"
    assert match_choice("**C++**", ["C", "C++"]) is None  # C in other marks


def test_unparsable_answers_and_abstentions_are_counted_apart() -> None:
    texts = ["bearish", "perhaps", "", None, "I'm sorry, but I cannot say.", "<think>bullish?</think>Bearish"]
    replies = {f"Shares {n}?": say(text) for n, text in enumerate(texts)}
    with serving(lambda _, body: (200, replies[body["messages"][-1]["content"]])) as url:
        answers = ask(url)
    assert answers.texts == ["bearish", "perhaps", "", "", "I'm sorry, but I cannot say.", "bearish"]
    assert answers.unparsable == {1}
    assert answers.abstained == {2, 3, 4}


def test_refusal_of_a_content_filter_is_an_abstention() -> None:
    with serving(lambda _, body: (200, say("bearish", finish_reason="content_filter"))) as url:
        assert ask(url).abstained == set(range(6))


def test_answers_are_greedy_and_in_the_order_of_the_rows() -> None:
    bodies: list[dict[str, Any]] = []

    def answer(_: int, body: dict[str, Any]) -> tuple[int, object]:
        bodies.append(body)
        return 200, say(body["messages"][-1]["content"])

    with serving(answer) as url:
        assert ask(url).texts == [f"Shares {n}?" for n in range(6)]
    assert {(body["model"], body["temperature"]) for body in bodies} == {("only", 0)}


def test_busy_server_is_asked_again() -> None:
    troubles: list[tuple[int, object]] = [(500, {}), (429, {}), (503, b"<html>"), (200, None)]
    with serving(lambda number, _: troubles[number] if number < len(troubles) else (200, say("bearish"))) as url:
        assert ask(url).texts == ["bearish"] * 6


@pytest.mark.parametrize(("status", "reply"), [(503, {}), (200, None)], ids=["busy", "closed connection"])
def test_server_that_never_answers_ends_the_evaluation(status: int, reply: object) -> None:
    with (
        serving(lambda *_: (status, reply)) as url,
        pytest.raises(SlmtuneError, match=r"did not answer row row-\d in 6 tries"),
    ):
        ask(url)


def test_server_that_hangs_ends_the_evaluation(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat_server, "TIMEOUT", 0.2)
    released = threading.Event()

    def hang(*_: object) -> tuple[int, object]:
        released.wait(30)
        return 200, None

    with serving(hang) as url:
        with pytest.raises(SlmtuneError, match="ReadTimeout"):
            ask(url)
        released.set()


def test_refused_row_is_named_without_its_text() -> None:
    with (
        serving(lambda *_: (400, {"error": {"message": "Shares 0? is too long"}})) as url,
        pytest.raises(SlmtuneError, match=r"refused row row-\d with status 400") as caught,
    ):
        ask(url)
    assert "Shares" not in str(caught.value)


@pytest.mark.parametrize("reply", [b"<html>", {}, {"choices": []}, [], {"choices": [{"message": {"content": 5}}]}])
def test_garbage_is_no_answer(reply: object) -> None:
    with serving(lambda *_: (200, reply)) as url, pytest.raises(SlmtuneError, match="no chat completion"):
        ask(url)


def test_unreachable_server_is_refused_before_anything_is_loaded(
    tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    with serving(lambda *_: (200, {})) as url:
        pass  # now nobody listens there
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", model="not/loaded", vs=(url,), forgetting=False)
    with pytest.raises(InputError, match="cannot be reached"):
        evaluate(request)


@pytest.mark.parametrize(
    ("models", "suffix", "reason"),
    [
        ({"data": [{"id": "one"}, {"id": "two"}]}, "", "has several models.*one, two"),
        ({"data": [{"id": "one"}]}, "#two", "has no model 'two'. Its models are: one"),
        ({"data": []}, "", "lists no model"),
        (b"<html>", "", "does not list its models"),
        ([], "", "does not list its models"),
    ],
)
def test_model_has_to_be_one_of_the_servers(models: object, suffix: str, reason: str) -> None:
    with serving(lambda *_: (200, {}), models) as url, pytest.raises(InputError, match=reason):
        find_server(url + suffix, None)


def test_one_of_several_models_is_named_behind_the_address() -> None:
    with serving(lambda *_: (200, {}), {"data": [{"id": "one"}, {"id": "two"}]}) as url:
        assert find_server(f"{url}/v1#two", None).model == "two"


def test_key_is_sent_and_not_shown(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("a-secret-key\n", "utf-8")
    options: dict[str, Any] = {"tasks": ("news",), "limit": 2, "few_shot": 0}
    with serving(lambda *_: (200, say("bearish")), key="a-secret-key") as url:
        with pytest.raises(InputError, match="refuses the key"):
            evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", vs=(url,), **options, forgetting=False))
        request = EvalRequest(
            tiny_adapter,
            tiny_corpus,
            tmp_path / "out",
            vs=(url,),
            vs_key_file=str(tmp_path / "key"),
            **options,
            forgetting=False,
        )
        result = evaluate(request)
        server = find_server(url, "a-secret-key")
    assert list(result.tasks["news"].vs) == [f"{server.host}/only"]
    assert "secret" not in repr(server)
    assert not [path for path in (tmp_path / "out").iterdir() if b"a-secret-key" in path.read_bytes()]


@pytest.mark.parametrize("content", [b"", b"two\nlines", b"not a key", "schlüssel".encode(), b"\xff"])
def test_file_without_a_key_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "key").write_bytes(content)
    with pytest.raises(InputError, match="--vs-key-file"):
        read_key(str(tmp_path / "key"), "https://api.example.org/v1")


def test_key_of_the_environment_is_not_sent_unencrypted_to_other_machines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "a-secret-key")
    assert read_key(None, "https://api.example.org/v1") == "a-secret-key"
    assert read_key(None, "http://127.0.0.1:8000") == "a-secret-key"
    assert read_key(None, "http://api.example.org/v1") is None


def test_offline_forbids_other_machines_but_not_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(InputError, match="--offline forbids asking the server at"):
        find_server("https://api.example.org/v1", None)
    with serving(lambda *_: (200, {})) as url:
        assert find_server(url, None).model == "only"


@pytest.mark.parametrize(
    "url", ["http://me:word@localhost/v1", "http:///v1", "http://localhost:99999", "http://a?key=b", "http://a b"]
)
def test_malformed_address_is_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"\(--vs\)"):
        find_server(url, None)


def test_rows_that_leave_this_machine_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(chat_server, "is_loopback", lambda url: False)
    caplog.set_level(logging.WARNING)
    with serving(lambda *_: (200, say("bearish"))) as url:
        ask(url)
    assert "The text of 6 rows is sent to 127.0.0.1" in caplog.text


def test_pairs_are_not_asked_over_a_url() -> None:
    row = Example("pair", chat("What?", "This."), "preference", rejected=chat("What?", "That."))
    assert refuse_server(EvalTask("pairs", "preference_accuracy", (row,))) is not None
