"""The likelihoods of labels are those of the model, independent of batches."""

from __future__ import annotations

from dataclasses import replace
from weakref import WeakKeyDictionary

import pytest
import torch

from finetune.models.chat_template import render_answer, render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example, Message
from finetune.scoring import labels, tree_passes
from finetune.scoring.label_scores import LabelScores
from finetune.scoring.labels import label_logprobs, score_labels

from ..conftest import chat

CHOICES = ("bearish", "neutral", "bullish", "no")


def examples() -> list[Example]:
    texts = ["Profit rose.", "Shares fell as costs grew and then fell again, and again.", "It held."]
    return [
        Example(str(n), (Message("user", text), Message("assistant", "no")), "classification", "no", CHOICES)
        for n, text in enumerate(texts)
    ]


def plain_logprob(loaded: LoadedModel, example: Example, choice: str) -> float:
    """One row and one choice at a time, with nothing shared."""
    prompt = render_prompt(loaded.tokenizer, example.prompt)
    answer = render_answer(loaded.tokenizer, example.prompt, choice)
    with torch.no_grad():
        logits = loaded.model(input_ids=torch.tensor([prompt + answer])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) + n - 1, token]) for n, token in enumerate(answer))


@pytest.mark.parametrize("batch_size", [1, 2, 8])
def test_shared_prompts_do_not_change_likelihoods(loaded: LoadedModel, batch_size: int) -> None:
    scores = label_logprobs(loaded, examples(), batch_size=batch_size)
    for example, row in zip(examples(), scores, strict=True):
        assert row == pytest.approx([plain_logprob(loaded, example, choice) for choice in CHOICES], abs=1e-3)


def test_base_and_adapter_differ(loaded: LoadedModel) -> None:
    with loaded.model.disable_adapter():
        base = label_logprobs(loaded, examples(), batch_size=4)
    assert base[0] != pytest.approx(label_logprobs(loaded, examples(), batch_size=4)[0], abs=1e-3)


def test_passes_of_few_rows_and_tokens_change_nothing(loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = label_logprobs(loaded, examples(), batch_size=8)
    monkeypatch.setattr(tree_passes, "MOST_LOGITS", 1)
    monkeypatch.setattr(tree_passes, "CHUNK", 1)
    done: list[int] = []
    scores = label_logprobs(loaded, examples(), batch_size=8, on_rows=done.append)
    assert done == [1, 1, 1]
    for row, other in zip(scores, expected, strict=True):
        assert row == pytest.approx(other, abs=1e-4)


def test_each_way_to_score_labels_is_what_it_says() -> None:
    scores = LabelScores(logprobs=(-2.0, -3.0), lengths=(1, 3), priors=(-1.0, -2.5), greedy=0)
    assert scores.scores("raw") == (-2.0, -3.0)
    assert scores.scores("normalized") == (-2.0, -1.0)
    assert scores.scores("calibrated") == (-1.0, -0.5)


def test_prior_keeps_all_but_the_last_question(loaded: LoadedModel) -> None:
    earlier = (Message("system", "Good news or bad?"), *chat("Sales fell.", "bearish"))
    row = replace(examples()[0], messages=(*earlier, *examples()[0].messages))
    empty = replace(row, messages=(*earlier, *chat("N/A", "no")))
    (scores,) = score_labels(loaded, [row], batch_size=1)
    assert scores.priors == pytest.approx([plain_logprob(loaded, empty, choice) for choice in CHOICES], abs=1e-4)
    assert scores.lengths == tuple(len(render_answer(loaded.tokenizer, row.prompt, choice)) for choice in CHOICES)


def test_model_that_computes_something_else_in_one_pass_is_scored_plainly(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(labels, "_verdicts", WeakKeyDictionary())
    monkeypatch.setattr(labels, "EXACT", -1.0)
    for example, row in zip(examples(), label_logprobs(loaded, examples(), batch_size=2), strict=True):
        assert row == pytest.approx([plain_logprob(loaded, example, choice) for choice in CHOICES], abs=1e-4)
    assert "which is slower" in caplog.text
