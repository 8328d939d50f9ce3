"""A merged encoder equals its adapter, head and names of labels included, and needs nothing but transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.artifacts import Adapter, Model
from finetune.cli.render.results import render_merge
from finetune.errors import CheckFailedError
from finetune.merge import MergeRequest, candidate, held_out, merge_adapter
from finetune.merge.held_out import choose_rows
from finetune.models.encoder_inputs import encode_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_adapter, load_base, load_merged
from finetune.records import Example, Message
from finetune.scoring.encoders import Labelling, Prediction, predict
from finetune.serve.chat import open_conversation

from ..corpora import write_corpus
from ..encoders import ANSWERS, ENCODERS, NEWS, TOPICS, encoder_tokenizer, write_encoder, write_encoder_adapter

TEXTS = ["profit rose", "shares fell as costs grew. the bank held capital.", "costs"]
CONTEXT = "The bank raised its outlook after profit rose."


def adapter_of(folder: Path, kind: str, head: Head, **settings: Any) -> Path:
    return write_encoder_adapter(folder / "adapter", write_encoder(folder / kind, kind), head, **settings)


def predictions(loaded: LoadedModel) -> list[Prediction]:
    contexts = [CONTEXT if loaded.head == ANSWERS else None for _ in TEXTS]
    inputs = [encode_texts(loaded.tokenizer, *pair, 64) for pair in zip(TEXTS, contexts, strict=True)]
    return predict(loaded, inputs, contexts, batch_size=2)


@pytest.mark.parametrize("kind", ENCODERS)
@pytest.mark.parametrize("head", [NEWS, TOPICS, ANSWERS], ids=["one label", "several labels", "answers"])
def test_merged_encoder_predicts_what_the_adapter_predicts(kind: str, head: Head, tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, kind, head)
    result = merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    assert result.drift.prompts == held_out.ROWS
    assert result.drift.greedy_agreement == 1.0
    assert result.drift.mean_kl < 1e-6
    model = Model.open(tmp_path / "model")
    assert Head.of_manifest(model.manifest) == head
    for one, other in zip(
        predictions(load_adapter(Adapter.open(adapter))), predictions(load_merged(model)), strict=True
    ):
        if isinstance(one, Labelling) and isinstance(other, Labelling):
            assert one.labels == other.labels
            assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)
        else:
            assert vars(one) == pytest.approx(vars(other), abs=1e-5)


@pytest.mark.parametrize("kind", ENCODERS)
def test_transformers_alone_gives_the_same_labels(kind: str, tmp_path: Path) -> None:
    from transformers import pipeline

    adapter = adapter_of(tmp_path, kind, NEWS)
    merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    classify: Any = pipeline("text-classification", model=str(tmp_path / "model"), top_k=None)
    for text, row in zip(TEXTS, predictions(load_adapter(Adapter.open(adapter))), strict=True):
        (scores,) = classify([text])
        assert isinstance(row, Labelling)
        assert {score["label"]: score["score"] for score in scores} == pytest.approx(row.probabilities, abs=1e-5)
    config = json.loads((tmp_path / "model" / "config.json").read_text("utf-8"))
    assert list(config["id2label"].values()) == list(NEWS.labels)


def test_cost_of_leaving_four_bits_is_measured(tmp_path: Path) -> None:
    adapter = adapter_of(tmp_path, "bert", NEWS, std=0.05, quantization="nf4")
    result = merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    original, dequantized = result.candidates
    assert dequantized.distance.mean_kl < 1e-6 < original.distance.mean_kl
    table = render_merge(result, "next").splitlines()[0]
    assert "equal predictions" in table
    assert "rows" in table.split()


def test_held_out_rows_that_the_head_reads_are_compared(tmp_path: Path) -> None:
    rows = [
        Example(
            "a", (Message("user", f"what rose?\n\n{CONTEXT}"), Message("assistant", "profit")), "qa", context=CONTEXT
        ),
        Example("b", (Message("user", "what rose?"), Message("assistant", "profit")), "qa"),
    ]
    corpus = write_corpus(tmp_path / "corpus", {"test": rows}).path
    chosen = choose_rows(corpus, encoder_tokenizer(), ANSWERS)
    assert [row.id for row in chosen if not row.id.startswith("general_rows")] == ["a"]
    result = merge_adapter(MergeRequest(adapter_of(tmp_path, "bert", ANSWERS), tmp_path / "model", corpus))
    assert result.drift.prompts == held_out.ROWS
    assert result.bundled_rows == held_out.ROWS - 1
    few = f"{held_out.ROWS - 1} of {held_out.ROWS} are general questions of slmtune, not held-out ones"
    assert few in render_merge(result, "slmtune serve")


def test_model_with_another_head_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def load_wrong(*arguments: Any, **options: Any) -> Any:
        model: Any = load_base(*arguments, **options)
        torch.nn.init.normal_(model.classifier.weight)
        return model

    monkeypatch.setattr(candidate, "load_base", load_wrong)
    adapter = adapter_of(tmp_path, "bert", NEWS)
    with pytest.raises(CheckFailedError, match="not the adapter: merged onto the original weights"):
        merge_adapter(MergeRequest(adapter, tmp_path / "model"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["adapter", "bert"]


def test_merged_encoder_is_chatted_with(tmp_path: Path) -> None:
    merge_adapter(MergeRequest(adapter_of(tmp_path, "bert", NEWS), tmp_path / "model"))
    with open_conversation("model", tmp_path / "model") as session:
        assert session.answer(TEXTS[0])["label"] in NEWS.labels
