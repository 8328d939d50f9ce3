"""The likelihoods of pairs are those of the model, independent of batches."""

from __future__ import annotations

import pytest

from finetune.models.load import LoadedModel
from finetune.records import Example
from finetune.scoring import supervised as scoring
from finetune.scoring.pairs import pair_logprobs

from ..conftest import chat
from .test_labels import plain_logprob


@pytest.mark.parametrize("most_logits", [1, 2**26])
def test_likelihoods_of_pairs_are_those_of_single_answers(
    loaded: LoadedModel, most_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scoring, "MOST_LOGITS", most_logits)
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
