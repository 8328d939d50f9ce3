"""Scores of tokens are those of the model, independent of batches and of what rows begin with."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from finetune.models.chat_template import render
from finetune.models.load import LoadedModel
from finetune.records import Message
from finetune.scoring import supervised
from finetune.scoring.supervised import score_tokens

from .test_labels import examples

SYSTEM = Message("system", "Answer in as few words as you can, and only if you are sure.")


@pytest.mark.parametrize("most_logits", [1, 2**26])
@pytest.mark.parametrize("system", [(), (SYSTEM,)])
def test_scores_of_tokens_are_those_of_the_whole_row(
    loaded: LoadedModel, system: tuple[Message, ...], most_logits: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervised, "MOST_LOGITS", most_logits)
    answers = ("The profit rose by a fifth, and the bank kept its outlook.", "No.", "Costs fell.")
    rows = [
        render(loaded.tokenizer, replace(row, messages=(*system, row.messages[0], Message("assistant", answer))))
        for row, answer in zip(examples(), answers, strict=False)
    ]
    done: list[int] = []
    scores = score_tokens(loaded, rows, batch_size=3, on_rows=done.append)
    assert sum(done) == len(rows)
    for row, scored in zip(rows, scores, strict=True):
        ids, learnt = torch.tensor(row.ids), torch.tensor(row.supervised[1:])
        with torch.inference_mode():
            logprobs = loaded.model(input_ids=ids[None]).logits[0, :-1].float().log_softmax(-1)[learnt]
        targets, weights = ids[1:][learnt], logprobs.exp()
        mean = (weights * logprobs).sum(-1)
        deviation = ((weights * logprobs**2).sum(-1) - mean**2).sqrt()
        chosen = logprobs.gather(-1, targets[:, None])[:, 0]
        assert scored.logprobs == pytest.approx(chosen.numpy(), abs=1e-4)
        assert scored.standard == pytest.approx(((chosen - mean) / deviation).numpy(), abs=1e-3)
        assert scored.wrong.tolist() == (logprobs.argmax(-1) != targets).tolist()
