"""Every class of encoder through every command: prepared, trained, evaluated, merged, loaded by transformers, chatted with."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import Adapter, Model
from finetune.evaluate import EvalRequest, evaluate
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.heads import Head
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.serve.chat import open_conversation
from finetune.train import TrainRequest, train

from .encoders import ENCODERS, write_encoder

SIGNS = {"bearish": "fell", "neutral": "held", "bullish": "rose"}
CONTEXT = "Costs of bank {number} grew . Shares {sign} after the outlook ."


def write_rows(folder: Path, name: str, rows: list[dict[str, Any]]) -> Path:
    """A corpus of rows, of which a third is held out."""
    (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    corpus = folder / f"{name}-corpus"
    source = str(folder / f"{name}.jsonl")
    prepare(PrepareRequest(corpus, sources=(source,), split_ratio="0.6/0.1/0.3", license="cc0-1.0"))
    return corpus


def news(number: int) -> dict[str, Any]:
    label = list(SIGNS)[number % 3]
    return {"text": f"Shares of bank {number} {SIGNS[label]} today .", "label": label}


def topics(number: int) -> dict[str, Any]:
    words = {"rates": "outlook", "stocks": "shares"}
    labels = [label for place, label in enumerate(words) if number >> place & 1]
    return {"text": f"{number} {' and '.join(words[label] for label in labels) or 'costs'} grew .", "labels": labels}


def question(number: int) -> dict[str, Any]:
    sign = list(SIGNS.values())[number % 3]
    context = CONTEXT.format(number=number, sign=sign)  # each its own: rows about one context are in one split
    return {"question": f"What did shares of bank {number} do ?", "context": context, "answer": sign}


KINDS = {"classification": news, "multi-label": topics, "extraction": question}


def run(folder: Path, encoder: str, kind: str, epochs: int) -> tuple[Any, Path]:
    """Train and merge; the scores of the adapter and the merged model."""
    base = write_encoder(folder / "base", encoder)
    corpus = write_rows(folder, "rows", [KINDS[kind](number) for number in range(60)])
    recipe = AdapterRecipe(
        model=str(base), num_train_epochs=epochs, learning_rate=1e-2, save_steps=0, quantization="none", eval_steps=0
    )
    adapter = train(TrainRequest(corpus, folder / "adapter", recipe)).adapter
    (score,) = evaluate(EvalRequest(adapter, corpus, folder / "eval")).tasks.values()
    merged = merge_adapter(MergeRequest(adapter, folder / "model", corpus)).model
    assert not any((part / "chat_template.jinja").exists() for part in (adapter, merged))
    manifests = [Adapter.open(adapter).manifest, Model.open(merged).manifest]
    heads = [Head.of_manifest(manifest) for manifest in manifests]
    assert heads[0] is not None
    assert heads[0].kind == kind
    assert heads[0] == heads[1]
    return score, merged


@pytest.mark.slow
@pytest.mark.parametrize("encoder", ENCODERS)
def test_every_encoder_learns_labels_and_keeps_them_through_every_command(encoder: str, tmp_path: Path) -> None:
    from transformers import pipeline

    score, merged = run(tmp_path, encoder, "classification", epochs=1 if encoder == "mobilebert" else 12)
    if encoder != "mobilebert":  # which learns too slowly with random weights
        assert score.adapter["weighted_f1"] > 0.9 > score.base["weighted_f1"]
    classify: Any = pipeline("text-classification", model=str(merged))
    with open_conversation("model", merged) as session:
        for number in range(3):
            text = news(number)["text"]
            assert session.answer(text)["label"] == classify(text)[0]["label"]


@pytest.mark.slow
def test_encoder_learns_several_labels(tmp_path: Path) -> None:
    score, merged = run(tmp_path, "bert", "multi-label", epochs=20)
    assert score.adapter["micro_f1"] > 0.9 > score.base["micro_f1"]
    with open_conversation("model", merged) as session:
        answers = [session.answer(topics(number)["text"])["labels"] for number in range(4)]
    assert answers == [[], ["rates"], ["stocks"], ["rates", "stocks"]]


@pytest.mark.slow
def test_encoder_learns_to_find_answers(tmp_path: Path) -> None:
    score, merged = run(tmp_path, "bert", "extraction", epochs=20)
    assert score.adapter["exact_match"] > 0.9 > score.base["exact_match"]
    (tmp_path / "context.txt").write_text(CONTEXT.format(number=7, sign="rose"), "utf-8")
    with open_conversation("model", merged, context=tmp_path / "context.txt") as session:
        assert session.answer("What did shares of bank 7 do ?")["answer"] == "rose"
