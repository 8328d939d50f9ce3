"""POST /v1/classify: labels, several labels and answers of encoders over HTTP, and in `slmtune chat`."""

from __future__ import annotations

import json
import os
import pty
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import load_adapter
from finetune.scoring.encoders import label_probabilities
from finetune.serve.chat import Reading, open_conversation
from finetune.serve.engine.classifier import BATCH_SIZE, CHUNK, Classification, Classifier
from finetune.serve.engine.job import ServedModel
from finetune.serve.targets import ServeTarget, open_engine

from ..command import Command, run, use_terminal
from ..encoders import ANSWERS, ENCODERS, NEWS, TOPICS, write_encoder, write_encoder_adapter
from .conftest import Answer, Running, running

CLASSIFY = "/v1/classify"
TEXTS = ["profit rose", "shares fell as costs grew. the bank held capital.", "costs"]
CONTEXT = "The bank raised its outlook after profit rose."


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "tiny-bert", "bert")


@pytest.fixture(scope="module")
def adapters(bert: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters of one encoder, by name: two with the same labels, one with several labels per row, one for answers."""
    folder = tmp_path_factory.mktemp("adapters")
    heads = {"news": NEWS, "press": NEWS, "topics": TOPICS, "answers": ANSWERS}
    return {
        name: write_encoder_adapter(folder / name, bert, head, seed) for seed, (name, head) in enumerate(heads.items())
    }


@contextmanager
def serving(adapters: dict[str, Path], *names: str) -> Iterator[Running]:
    engine = open_engine([ServeTarget(name, adapters[name]) for name in names])
    try:
        with running(engine) as server:
            yield server
    finally:
        engine.close()
        engine.join()


def classify(server: Running, texts: Any, model: str = "news") -> Answer:
    return server.ask("POST", CLASSIFY, {"model": model, "input": texts})


def expected(adapter: Path, texts: list[str]) -> list[dict[str, float]]:
    loaded = load_adapter(Adapter.open(adapter))
    assert loaded.head is not None
    inputs = [encode_texts(loaded.tokenizer, text, None, 64) for text in texts]
    rows = label_probabilities(loaded, inputs, batch_size=1)
    return [dict(zip(loaded.head.labels, row, strict=True)) for row in rows]


def test_each_text_has_its_label_and_the_probability_of_every_label(adapters: dict[str, Path]) -> None:
    with serving(adapters, "news") as server:
        answer, one = classify(server, TEXTS), classify(server, TEXTS[0])
    assert (answer.status, answer.data["object"], answer.data["model"]) == (200, "list", "news")
    assert [row["index"] for row in answer.data["data"]] == [0, 1, 2]
    for row, probabilities in zip(answer.data["data"], expected(adapters["news"], TEXTS), strict=True):
        assert row["probs"] == pytest.approx(probabilities, abs=1e-5)
        assert row["label"] == max(probabilities, key=lambda label: probabilities[label])
        assert row["num_classes"] == 3
    assert one.data["data"][0]["probs"] == pytest.approx(answer.data["data"][0]["probs"], abs=1e-5)
    usage = answer.data["usage"]
    assert usage["prompt_tokens"] == usage["total_tokens"] > 0
    assert usage["completion_tokens"] == 0


def test_pair_of_texts_is_read_as_two_segments(adapters: dict[str, Path]) -> None:
    with serving(adapters, "news") as server:
        pair = classify(server, [["profit rose", "shares fell"]]).data["data"]
        texts = classify(server, ["profit rose", "shares fell"]).data["data"]
    assert (len(pair), len(texts)) == (1, 2)
    assert pair[0]["probs"] not in [row["probs"] for row in texts]


def test_several_labels_are_those_likelier_than_not(adapters: dict[str, Path]) -> None:
    with serving(adapters, "topics") as server:
        rows = classify(server, TEXTS, "topics").data["data"]
    for row in rows:
        assert row["labels"] == [label for label, share in row["probs"].items() if share >= 0.5]
        assert "label" not in row


def test_answer_is_a_part_of_the_context(adapters: dict[str, Path]) -> None:
    with serving(adapters, "answers") as server:
        answer = classify(server, [["what rose?", CONTEXT]], "answers")
        refused = classify(server, "what rose?", "answers")
    [row] = answer.data["data"]
    assert row["answer"] == CONTEXT[row["start"] : row["end"]] != ""
    assert 0 < row["score"] <= 1
    assert (refused.status, refused.error["param"]) == (400, "input")
    assert "[[question, context]]" in refused.error["message"]


@pytest.mark.parametrize("kind", ENCODERS)
def test_every_family_is_served(kind: str, tmp_path: Path) -> None:
    adapter = write_encoder_adapter(tmp_path / "adapter", write_encoder(tmp_path / kind, kind), NEWS)
    with serving({"news": adapter}, "news") as server:
        rows = classify(server, TEXTS).data["data"]
    for row, probabilities in zip(rows, expected(adapter, TEXTS), strict=True):
        assert row["probs"] == pytest.approx(probabilities, abs=1e-5)


def test_adapters_with_the_same_labels_share_an_encoder_and_answer_for_themselves(adapters: dict[str, Path]) -> None:
    with serving(adapters, "news", "press") as server:
        rows = {name: classify(server, TEXTS, name).data["data"] for name in ("news", "press", "news")}
        cards = server.ask("GET", "/v1/models").data["data"]
    for name, answers in rows.items():
        for row, probabilities in zip(answers, expected(adapters[name], TEXTS), strict=True):
            assert row["probs"] == pytest.approx(probabilities, abs=1e-5)
    assert [card["id"] for card in cards] == ["news", "press"]  # not the base, which has no head
    assert {card["parent"] for card in cards} == {card["root"] for card in cards}


@pytest.mark.parametrize(
    ("texts", "problem"),
    [
        ([], "a list of 1 to 256"),
        (5, "a list of 1 to 256"),
        (["a"] * 257, "a list of 1 to 256"),
        (["a", ""], "item 1"),
        ([["a", "b", "c"]], "item 0"),
        ([["a", None]], "item 0"),
        (["a", 5], "item 1"),
    ],
)
def test_malformed_input_is_refused(adapters: dict[str, Path], texts: Any, problem: str) -> None:
    with serving(adapters, "news") as server:
        answer = classify(server, texts)
    assert (answer.status, answer.error["param"]) == (400, "input")
    assert problem in answer.error["message"]


def test_text_beyond_the_context_is_refused_with_its_length(adapters: dict[str, Path]) -> None:
    with serving(adapters, "news") as server:
        answer = classify(server, ["profit", "rose " * 200])
    assert (answer.status, answer.error["code"]) == (400, "context_length_exceeded")
    assert "202 tokens" in answer.error["message"]
    assert "at most 128" in answer.error["message"]


def test_requests_for_text_are_sent_to_the_route_of_encoders(adapters: dict[str, Path]) -> None:
    chat = {"model": "news", "messages": [{"role": "user", "content": "hello"}]}
    with serving(adapters, "news") as server:
        answers = [
            server.ask("POST", "/v1/chat/completions", chat),
            server.ask("POST", "/v1/completions", {"model": "news", "prompt": "hello"}),
        ]
        unknown = classify(server, "a", "else")
    for answer in answers:
        assert (answer.status, answer.error["param"]) == (400, "model")
        assert "POST /v1/classify" in answer.error["message"]
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("field", ["labels", "instruction", "task"])
def test_an_encoder_has_the_labels_of_its_training(adapters: dict[str, Path], field: str) -> None:
    value = ["a", "b"] if field == "labels" else "a"
    with serving(adapters, "news") as server:
        answer = server.ask("POST", CLASSIFY, {"model": "news", "input": "a", field: value})
    assert (answer.status, answer.error["param"]) == (400, field)


def test_full_queue_is_a_429_and_a_closed_engine_a_503(adapters: dict[str, Path]) -> None:
    loaded = load_adapter(Adapter.open(adapters["news"]))
    reached, released = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        reached.set()
        assert released.wait(30)

    loaded.model.register_forward_pre_hook(wait)
    classifier = Classifier(loaded, [ServedModel("news")], queue_size=1)
    with running(classifier) as server:
        texts = classifier.encode([("a", None)])
        ended: list[Any] = []
        for _ in range(2):
            classifier.submit(texts, "news", ended.append)
        assert reached.wait(30)
        full = classify(server, "a")
        classifier.close()
        stopped = classify(server, "a")
        released.set()
    classifier.join()
    assert (full.status, full.error["code"]) == (429, "queue_full")
    assert (stopped.status, stopped.error["code"]) == (503, "unavailable")
    assert len(ended) == 2


def test_request_whose_client_leaves_ends_after_a_few_batches(adapters: dict[str, Path]) -> None:
    loaded = load_adapter(Adapter.open(adapters["news"]))
    classifier = Classifier(loaded, [ServedModel("news")])
    reached, released, ended = threading.Event(), threading.Event(), threading.Event()
    events: list[Any] = []
    steps = 0

    def step(*_: object) -> None:
        nonlocal steps
        steps += 1
        reached.set()
        assert released.wait(30)

    def report(event: Any) -> None:
        events.append(event)
        ended.set()

    loaded.model.register_forward_pre_hook(step)
    running_job = classifier.submit(classifier.encode([("a", None)] * 256), "news", report)
    waiting_job = classifier.submit(classifier.encode([("a", None)]), "news", events.append)
    assert reached.wait(30)
    waiting_job.cancel()
    assert events == [Classification((), 0)]
    running_job.cancel()
    released.set()
    assert ended.wait(30)
    classifier.close()
    classifier.join()
    assert events == [Classification((), 0)] * 2
    assert steps <= CHUNK / BATCH_SIZE


def test_adapters_with_other_labels_and_a_base_without_a_head_are_not_served_together(
    adapters: dict[str, Path], bert: Path
) -> None:
    with pytest.raises(InputError, match="news, topics predict different things"):
        open_engine([ServeTarget(name, adapters[name]) for name in ("news", "topics")])
    with pytest.raises(InputError, match="tiny-bert has no head"):
        open_engine([ServeTarget("news", adapters["news"]), ServeTarget("tiny-bert", bert)])


def reading(adapter: Path, **options: Any) -> Any:
    return open_conversation("model", adapter, **options)


def test_chat_labels_each_line(adapters: dict[str, Path]) -> None:
    with reading(adapters["news"]) as session:
        assert isinstance(session, Reading)
        said, data = "".join(session.reply(TEXTS[0])), session.answer(TEXTS[0])
    assert said.startswith(f"{data['label']}  ({data['label']} {data['probs'][data['label']]:.1%}, ")


def test_chat_answers_from_a_context_that_a_line_may_replace(adapters: dict[str, Path], tmp_path: Path) -> None:
    (tmp_path / "one.txt").write_text(CONTEXT, "utf-8")
    (tmp_path / "two.txt").write_text("Shares fell.", "utf-8")
    with reading(adapters["answers"], context=tmp_path / "one.txt") as session:
        assert session.answer("what rose?")["answer"] in CONTEXT
        assert session.take_context(tmp_path / "two.txt") == 12
        assert session.answer("what fell?")["answer"] in "Shares fell."


def test_chat_asks_for_what_is_missing(adapters: dict[str, Path], tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n", "utf-8")
    with reading(adapters["answers"]) as session, pytest.raises(InputError, match="--context FILE"):
        list(session.reply("what rose?"))
    for path, problem in ((tmp_path / "none.txt", "No such file"), (tmp_path / "empty.txt", "is empty")):
        with pytest.raises(InputError, match=problem), reading(adapters["answers"], context=path):
            pass
    with pytest.raises(InputError, match="Leave out --system"), reading(adapters["news"], system="Be brief."):
        pass
    with (
        pytest.raises(InputError, match="--context is for encoders"),
        reading(tiny_model, context=tmp_path / "empty.txt"),
    ):
        pass


def test_many_labels_are_not_all_printed(bert: Path, tmp_path: Path) -> None:
    head = Head("classification", tuple(f"label{number}" for number in range(9)))
    with reading(write_encoder_adapter(tmp_path / "adapter", bert, head)) as session:
        said = "".join(session.reply("profit rose"))
    assert said.count("%") == 5
    assert said.endswith(", …)")


def test_command_prints_labels_or_json_and_refuses_a_question_without_a_context(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    said = run("chat", adapters["news"], "--prompt", TEXTS[0], cwd=tmp_path)
    data = json.loads(run("chat", adapters["news"], "--prompt", TEXTS[0], "--json", cwd=tmp_path).stdout)
    assert said.stdout.startswith(f"{data['label']}  (")
    refused = run("chat", adapters["answers"], "--prompt", "what rose?", cwd=tmp_path)
    assert refused.returncode == 2
    assert refused.stderr.count("\n") == 1
    assert "--context FILE" in refused.stderr


def test_question_without_a_context_does_not_end_a_conversation_in_a_terminal(
    adapters: dict[str, Path], tmp_path: Path
) -> None:
    (tmp_path / "context.txt").write_text(CONTEXT, "utf-8")
    terminal, typed = pty.openpty()
    chat = Command("chat", adapters["answers"], cwd=tmp_path, before=partial(use_terminal, os.ttyname(typed), 0))
    os.write(terminal, f"what rose?\n/context {tmp_path / 'context.txt'}\nwhat rose?\n\x04".encode())
    assert chat.wait() == 0, chat.stderr
    assert "Error: This model finds the answer to a question in a context." in chat.stderr
    assert f"Context: {len(CONTEXT)} characters" in chat.stderr
    assert chat.stdout.splitlines()[-1].removeprefix("> > > ").partition("  (")[0] in CONTEXT
