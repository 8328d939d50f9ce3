"""POST /v1/classify for a model that writes: the probabilities of `slmtune eval`, with the labels of the training or others."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter
from finetune.evaluate.answers import pick_labels
from finetune.models.load import load_adapter
from finetune.records import Example, Message
from finetune.scoring.label_tasks import LabelTask
from finetune.scoring.labels import score_labels
from finetune.scoring.tasks import EvalTask
from finetune.serve import ServeTarget
from finetune.serve.targets import open_engine

from .conftest import Answer, Running, make_adapter, running

CLASSIFY = "/v1/classify"
TEXTS = ["Profit rose by a third.", "The plant closes in May.", "Nothing happened 👍"]
SENTIMENTS = ("bearish", "neutral", "bullish")
URGENCY = LabelTask("urgency", ("no", "yes"), "Is this urgent?", "Ticket: {{ text }}")
OTHER = LabelTask("colour", ("red", "green"))
PAIRS = LabelTask("same", ("no", "yes"), prompt="{{ text }} {{ text2 }}")
INSTRUCTION = "Is this news bearish, neutral or bullish for the investor?"  # of the domain finance


@pytest.fixture(scope="module")
def adapters(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Adapters whose manifests name the domain of their corpus, a domain of the user's or none, or their own questions."""
    folder = tmp_path_factory.mktemp("adapters")
    for name, tasks in (("urgency", [URGENCY]), ("two", [URGENCY, OTHER]), ("pairs", [PAIRS])):
        make_adapter(folder / name, tiny_model, 7, quantization="none", std=0.1, domain="finance", label_tasks=tasks)
    for seed, (name, domain) in enumerate((("news", "finance"), ("tickets", "custom"), ("none", None))):
        make_adapter(folder / name, tiny_model, seed, quantization="none", std=0.1, domain=domain)
    return {path.name: path for path in folder.iterdir()}


@pytest.fixture(scope="module")
def server(adapters: dict[str, Path]) -> Iterator[Running]:
    engine = open_engine([ServeTarget(name, path) for name, path in adapters.items()])
    try:
        with running(engine) as server:
            yield server
    finally:
        engine.close()
        engine.join()


def classify(server: Running, texts: Any, model: str = "news", **fields: object) -> Answer:
    return server.ask("POST", CLASSIFY, {"model": model, "input": texts, **fields})


def evaluated(
    adapter: Path, labels: tuple[str, ...], system: str | None, texts: list[str] = TEXTS
) -> list[dict[str, float]]:
    """The probabilities that an evaluation of the adapter reports."""
    opening = [Message("system", system)] if system else []
    examples = tuple(
        Example(str(number), (*opening, Message("user", text), Message("assistant", labels[0])), "classification",
                label=labels[0], choices=labels)
        for number, text in enumerate(texts)
    )  # fmt: skip
    loaded = load_adapter(Adapter.open(adapter))
    task = EvalTask("sentiment", "weighted_f1", examples)
    return pick_labels(task, score_labels(loaded, examples, batch_size=4), tuned=True).probabilities


def test_probabilities_are_those_of_an_evaluation(server: Running, adapters: dict[str, Path]) -> None:
    answer = classify(server, TEXTS)
    assert (answer.status, answer.data["object"], answer.data["model"]) == (200, "list", "news")
    for number, (row, expected) in enumerate(
        zip(answer.data["data"], evaluated(adapters["news"], SENTIMENTS, INSTRUCTION), strict=True)
    ):
        assert row["index"] == number
        assert row["probs"] == pytest.approx(expected, abs=1e-4)
        assert row["label"] == max(expected, key=lambda label: expected[label])
        assert row["num_classes"] == 3
    assert answer.data["usage"]["prompt_tokens"] > 0
    one = classify(server, TEXTS[0]).data["data"]
    metrics = server.ask("GET", "/metrics").text
    tokens = answer.data["usage"]["prompt_tokens"] + classify(server, TEXTS[0]).data["usage"]["prompt_tokens"]
    assert f'slmtune_prompt_tokens_total{{model="news"}} {tokens:.1f}' in metrics
    assert 'slmtune_completion_tokens_total{model="news"} 0.0' in metrics
    assert one[0]["probs"] == pytest.approx(answer.data["data"][0]["probs"], abs=1e-4)


@pytest.mark.parametrize("instruction", [None, "Urgent?"])
@pytest.mark.parametrize("count", [2, 12])
def test_a_request_may_bring_its_own_labels(
    server: Running, adapters: dict[str, Path], instruction: str | None, count: int
) -> None:
    labels = tuple(f"level {number}" for number in range(count))
    rows = classify(server, TEXTS, "tickets", labels=list(labels), instruction=instruction).data["data"]
    for row, expected in zip(rows, evaluated(adapters["tickets"], labels, instruction), strict=True):
        assert row["probs"] == pytest.approx(expected, abs=1e-4)


def test_another_task_of_the_domain_is_asked_for_by_name(server: Running, adapters: dict[str, Path]) -> None:
    rows = classify(server, TEXTS, task="stance").data["data"]
    system = "Is this statement on monetary policy dovish, hawkish or neutral?"
    for row, expected in zip(rows, evaluated(adapters["news"], ("dovish", "hawkish", "neutral"), system), strict=True):
        assert row["probs"] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(("model", "task"), [("urgency", None), ("two", "urgency")])
def test_labels_and_question_are_those_of_the_training(
    server: Running, adapters: dict[str, Path], model: str, task: str | None
) -> None:
    rows = classify(server, TEXTS, model, task=task).data["data"]
    texts = [f"Ticket: {text}" for text in TEXTS]
    for row, expected in zip(rows, evaluated(adapters[model], ("no", "yes"), "Is this urgent?", texts), strict=True):
        assert row["probs"] == pytest.approx(expected, abs=1e-4)


def test_the_list_of_models_names_their_labels(server: Running) -> None:
    labels = {card["id"]: card["labels"] for card in server.ask("GET", "/v1/models").data["data"]}
    known = {name: labels.pop(name) for name in ("urgency", "two", "pairs", "none")}
    assert known == {"urgency": ["no", "yes"], "two": None, "pairs": None, "none": None}


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model": "tickets"}, "labels of this model are not known"),
        ({"model": "none"}, "labels of this model are not known"),
        ({"task": "nothing"}, "Its tasks: sentiment"),
        ({"task": "questions"}, "Its tasks: sentiment"),
        ({"model": "two"}, "urgency, colour"),
        ({"model": "pairs"}, "more than a text"),
        ({"labels": ["one"]}, "labels"),
        ({"labels": ["a", "a"]}, "labels"),
        ({"labels": ["a"] * 300}, "labels"),
        ({"labels": [f"l{n}" for n in range(200)], "input": ["x"] * 10}, "at most 1024"),
        ({"input": [["a", "b"]]}, "single texts"),
        ({"input": ["word " * 600]}, "512"),
        ({"model": "nobody"}, "no model of that name"),
    ],
)
def test_what_cannot_be_labelled_is_refused(server: Running, fields: dict[str, Any], said: str) -> None:
    answer = server.ask("POST", CLASSIFY, {"model": "news", "input": "a", **fields})
    assert answer.status in (400, 404)
    assert said in answer.error["message"]
