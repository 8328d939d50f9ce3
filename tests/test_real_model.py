"""The main task on a real pretrained model, small enough for CI."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune.artifacts import Adapter, Corpus, Model
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.answers import pick_labels
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.encoder_inputs import encode
from finetune.models.find import find_base
from finetune.models.load import load_adapter, load_merged
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import load_adapter_recipe
from finetune.scoring.labels import score_labels
from finetune.scoring.metrics import classification_scores
from finetune.scoring.tasks import tasks_of
from finetune.train import TrainRequest, train


@pytest.mark.slow
def test_finance_sample_makes_a_real_model_better(real_model: Path, tmp_path: Path) -> None:
    """QLoRA for 40 steps on the bundled news, then 40 held-out sentences: base against adapter, and the merged model."""
    prepared = prepare(PrepareRequest(tmp_path / "corpus", domain="finance", sample=True, tasks=("sentiment",)))
    recipe = load_adapter_recipe(
        "finance",
        overrides={"model": str(real_model), "max_steps": 40, "per_device_train_batch_size": 4, "eval_steps": 0},
    )
    recipe = recipe.model_copy(update={"seed": 0})  # so few steps do not help with every seed
    train(TrainRequest(prepared.corpus, tmp_path / "adapter", recipe))
    request = EvalRequest(
        tmp_path / "adapter", prepared.corpus, tmp_path / "eval", limit=40, few_shot=0, forgetting=False
    )
    evaluated = evaluate(request)
    news = evaluated.tasks["news"]
    assert news.n == 40
    assert news.ci95[0] > 0, f"weighted F1 {news.base['weighted_f1']:.2f} -> {news.adapter['weighted_f1']:.2f}"

    merged = merge_adapter(
        MergeRequest(tmp_path / "adapter", tmp_path / "model", prepared.corpus, onto="dequantized", rows=16)
    )
    assert merged.drift.mean_kl < 0.02
    assert merged.greedy_agreement > 0.7
    (task,) = tasks_of(Corpus.open(prepared.corpus), "test", limit=40)
    scored = score_labels(load_merged(Model.open(tmp_path / "model")), task.examples, batch_size=16)
    labels = [example.label or "" for example in task.examples]
    merged_f1 = classification_scores(labels, pick_labels(task, scored, tuned=True).texts)["weighted_f1"]
    assert merged_f1 > news.headline["base"], "the merged model lost the gain"


@pytest.mark.slow
def test_finance_sample_teaches_a_real_encoder(real_encoder: Path, tmp_path: Path) -> None:
    """MiniLM on the bundled news for 120 steps: far above always giving the same label, which has a weighted F1 of 0.17."""
    prepared = prepare(PrepareRequest(tmp_path / "corpus", domain="finance", sample=True, tasks=("sentiment",)))
    recipe = load_adapter_recipe("finance", overrides={"model": str(real_encoder), "max_steps": 120, "eval_steps": 0})
    train(TrainRequest(prepared.corpus, tmp_path / "adapter", recipe))
    loaded, (task,) = load_adapter(Adapter.open(tmp_path / "adapter")), tasks_of(Corpus.open(prepared.corpus), "test")
    answers = []
    for example in task.examples:
        read = encode(loaded.tokenizer, example, 512)
        inputs = {"input_ids": torch.tensor([read.ids]), "token_type_ids": torch.tensor([read.token_types])}
        answers.append(loaded.model.config.id2label[int(loaded.model(**inputs).logits.argmax())])
    assert classification_scores([example.label or "" for example in task.examples], answers)["weighted_f1"] > 0.6


@pytest.mark.slow
def test_real_model_counts_its_parameters(real_model: Path) -> None:
    assert find_base(str(real_model)).parameters == 134_515_008  # as in the preset
