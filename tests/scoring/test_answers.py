"""Likelihoods and answers are those of the model, independent of batches."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from finetune.artifacts import Adapter
from finetune.models.chat_template import render_answer, render_prompt
from finetune.models.load import LoadedModel, load_adapter
from finetune.records import Example, Message
from finetune.scoring import answers
from finetune.scoring.answers import generate, label_logprobs, pair_logprobs, trim_answer

from ..conftest import chat

CHOICES = ("bearish", "neutral", "bullish", "no")


@pytest.fixture(scope="module")
def loaded(tiny_adapter: Path) -> LoadedModel:
    return load_adapter(Adapter.open(tiny_adapter))


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


@pytest.mark.parametrize("most_logits", [1, 2**26])
def test_likelihoods_of_pairs_are_those_of_single_answers(
    loaded: LoadedModel, most_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answers, "MOST_LOGITS", most_logits)
    questions = ["Profit?", "And shares, as costs grew?", "Costs?"]
    replies = [("It rose.", "No idea."), ("They fell.", "They fell, and then fell again."), ("No", "Yes.")]
    pairs = [
        Example(str(number), chat(question, chosen), "preference", rejected=chat(question, rejected))
        for number, (question, (chosen, rejected)) in enumerate(zip(questions, replies, strict=True))
    ]
    done: list[int] = []
    scores = pair_logprobs(loaded, pairs, batch_size=2, on_rows=done.append)
    for example, texts, both in zip(pairs, replies, scores, strict=True):
        assert both == pytest.approx([plain_logprob(loaded, example, text) for text in texts], abs=1e-3)
    assert done == [2, 1]


def test_base_and_adapter_differ(loaded: LoadedModel) -> None:
    with loaded.model.disable_adapter():
        base = label_logprobs(loaded, examples(), batch_size=4)
    assert base[0] != pytest.approx(label_logprobs(loaded, examples(), batch_size=4)[0], abs=1e-3)


def test_generated_answers_do_not_depend_on_the_batch(loaded: LoadedModel) -> None:
    alone = [generate(loaded, [example], batch_size=1, max_new_tokens=8)[0] for example in examples()]
    assert generate(loaded, examples(), batch_size=3, max_new_tokens=8) == alone
    assert any(alone)


def test_code_keeps_the_indentation_of_its_first_line() -> None:
    assert trim_answer("\n    return a\n", "code") == "    return a"
    assert trim_answer("\n    yes \n", "qa") == "yes"
