"""The likelihoods of labels are those of the model, independent of batches."""

from __future__ import annotations

import pytest
import torch

from finetune.models.chat_template import render_answer, render_prompt
from finetune.models.load import LoadedModel
from finetune.records import Example, Message
from finetune.scoring.labels import label_logprobs

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
