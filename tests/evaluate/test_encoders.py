"""Evaluations of encoders: their labels and answers, beside a baseline instead of a base model that has no head."""

from __future__ import annotations

import json
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import EvalReport
from finetune.cli.render.evaluation import render_scores
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.models.heads import Head
from finetune.records import Example, Message
from finetune.scoring.metrics import answer_f1, classification_scores

from ..corpora import write_corpus
from ..encoders import ANSWERS, NEWS, TOPICS, write_encoder, write_encoder_adapter

LABELS = ("bearish", "neutral", "bullish", "bullish")
SIGNS = {"bearish": "fell", "neutral": "held", "bullish": "rose"}
SETS: tuple[tuple[str, ...], ...] = (("rates",), ("rates", "bonds"), (), ("rates",))
CONTEXT = "Banks hold capital. Profit rose after the outlook. Shares fell as costs grew."


def row(number: int, text: str, answer: str, **fields: Any) -> Example:
    return Example(
        f"row-{number}",
        (Message("user", text), Message("assistant", answer)),
        "classification",
        source="news",
        **fields,
    )


def news(label: str, number: int) -> Example:
    text = f"Shares of bank {number} {SIGNS.get(label, 'grew')}."
    return row(number, text, label, label=label, choices=NEWS.labels)


def topics(labels: tuple[str, ...], number: int) -> Example:
    answer = "; ".join(labels) or "none"
    return row(number, f"Costs of bank {number} and profit.", answer, labels=labels, choices=TOPICS.labels)


def question(number: int) -> Example:
    asked, answer = (("What fell?", "Shares"), ("What do banks hold?", "capital"))[number % 2]
    return row(number, f"{asked}\n\n{CONTEXT}", answer, context=CONTEXT)


ROWS = {
    NEWS: [news(LABELS[number % 4], number) for number in range(24)],
    TOPICS: [topics(SETS[number % 4], number) for number in range(24)],
    ANSWERS: [question(number) for number in range(12)],
}


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("models") / "bert", "bert")


def run(bert: Path, folder: Path, head: Head, rows: list[Example], **options: Any) -> EvalResult:
    adapter = write_encoder_adapter(folder / "adapter", bert, head)
    write_corpus(folder / "corpus", {"train": rows[:1], "test": rows})
    return evaluate(EvalRequest(adapter, folder / "corpus", folder / "eval", **options))


def samples_of(result: EvalResult) -> list[dict[str, Any]]:
    lines = (result.report.parent / "samples.jsonl").read_text("utf-8").splitlines()
    return [json.loads(line) for line in lines]


def predict_with_peft(adapter: Path, bert: Path, texts: list[str]) -> list[str]:
    """The labels as transformers and PEFT give them, without slmtune."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = AutoModelForSequenceClassification.from_pretrained(bert, num_labels=3)
    model: Any = PeftModel.from_pretrained(base, str(adapter))
    tokenizer = AutoTokenizer.from_pretrained(adapter)
    with torch.inference_mode():
        logits = [model(**tokenizer(text, return_tensors="pt")).logits[0] for text in texts]
    return [NEWS.labels[int(row.argmax())] for row in logits]


def test_labels_are_scored_beside_the_most_frequent_one(bert: Path, tmp_path: Path) -> None:
    result = run(bert, tmp_path, NEWS, ROWS[NEWS])
    score, truth = result.tasks["news"], [str(one.label) for one in ROWS[NEWS]]
    expected = predict_with_peft(tmp_path / "adapter", bert, [one.messages[0].content for one in ROWS[NEWS]])
    assert (score.metric, score.baseline, score.majority_label) == ("weighted_f1", "majority", "bullish")
    assert score.base == classification_scores(truth, ["bullish"] * len(truth))
    assert score.adapter == classification_scores(truth, expected)
    assert score.delta == pytest.approx(score.headline["adapter"] - score.headline["base"])
    samples = {sample["id"]: sample for sample in samples_of(result)}
    assert [samples[one.id]["adapter"] for one in ROWS[NEWS]] == expected
    assert {sample["base"] for sample in samples.values()} == {"bullish"}
    assert sum(samples["row-0"]["adapter_probabilities"].values()) == pytest.approx(1, abs=1e-4)
    EvalReport.open(result.report.parent)


def test_page_and_table_say_what_the_adapter_is_compared_with(bert: Path, tmp_path: Path) -> None:
    result = run(bert, tmp_path, NEWS, ROWS[NEWS])
    page = " ".join(unescape(result.report.read_text("utf-8")).split())
    assert "It has no head of its own, so without the adapter it has no answers" in page
    assert "are compared with the most frequent label." in page
    assert "its base" not in page
    names = [line.split()[0] for line in render_scores(result.tasks).splitlines()[3:6]]
    assert names == ["random", "majority", "adapter"]


def test_several_labels_have_micro_and_macro_f1_and_exact_match(bert: Path, tmp_path: Path) -> None:
    result = run(bert, tmp_path, TOPICS, ROWS[TOPICS])
    score = result.tasks["news"]
    assert (score.metric, score.baseline, score.majority) == ("micro_f1", "majority", None)
    assert score.base["exact_match"] == 0.5
    assert score.base["micro_f1"] == pytest.approx(2 * 18 / (24 + 24))  # always "rates": 18 of 24 expected labels
    assert set(score.adapter) == {"micro_f1", "macro_f1", "exact_match"}
    assert {sample["base"] for sample in samples_of(result)} == {"rates"}
    assert {sample["reference"] for sample in samples_of(result)} == {"rates", "rates; bonds", "none"}
    assert "micro F1" in unescape(result.report.read_text("utf-8"))


def test_answers_are_scored_as_for_squad_beside_the_likeliest_sentence(bert: Path, tmp_path: Path) -> None:
    result = run(bert, tmp_path, ANSWERS, ROWS[ANSWERS])
    score, samples = result.tasks["news"], samples_of(result)
    assert (score.metric, score.baseline) == ("answer_f1", "sentence")
    for sample in samples:
        assert sample["adapter"] in CONTEXT
        assert (
            sample["base"]
            == {"Shares": "Shares fell as costs grew.", "capital": "Banks hold capital."}[sample["reference"]]
        )
    mean = sum(answer_f1(sample["reference"], sample["adapter"]) for sample in samples) / len(samples)
    assert score.adapter["answer_f1"] == pytest.approx(mean)
    assert score.base["answer_f1"] == pytest.approx((2 / 6 + 2 / 4) / 2)
    assert score.base["exact_match"] == 0


@pytest.mark.parametrize(
    ("head", "rows", "problem"),
    [
        (
            NEWS,
            [*ROWS[NEWS], news("mixed", 99)],
            "labels that this adapter does not know: mixed .in row row-99.. It knows",
        ),
        (NEWS, [*ROWS[NEWS], question(99)], "1 of 25 rows of the test split have no label of their own; .* row-99"),
        (TOPICS, [*ROWS[TOPICS], topics(("rates", "gold"), 99)], "does not know: gold"),
        (ANSWERS, [*ROWS[ANSWERS], news("neutral", 99)], "1 of 13 rows .* have no context"),
    ],
    ids=["unknown label", "no label", "unknown among several", "no context"],
)
def test_rows_that_the_head_cannot_answer_are_refused(
    head: Head, rows: list[Example], problem: str, bert: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=problem):
        run(bert, tmp_path, head, rows)
    assert not (tmp_path / "eval").exists()


def test_rows_that_are_cut_are_counted(bert: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(bert, tmp_path, NEWS, [*ROWS[NEWS], row(99, "Shares rose. " * 40, "bullish", label="bullish")])
    assert "1 of 25 rows of news are longer than 64 tokens" in caplog.text
