"""Labels and answers of encoders: the same one by one and in padded batches, and the same as transformers gives."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from finetune.artifacts import Adapter
from finetune.models.encoder_inputs import encode
from finetune.models.load import LoadedModel, load_adapter
from finetune.records import Example, Message
from finetune.scoring.encoders import extract_answers, label_probabilities, pick_labels

from ..encoders import ANSWERS, ENCODERS, NEWS, TOPICS, write_encoder, write_encoder_adapter

TEXTS = ["profit rose.", "the bank raised its outlook after profit rose. shares fell as costs grew.", "costs!"]
CONTEXT = "Banks hold capital. Shares fell as costs grew."


def row(text: str, context: str | None = None) -> Example:
    turn = text if context is None else f"{text}\n\n{context}"
    return Example(text, (Message("user", turn), Message("assistant", "")), "classification", context=context)


def loaded(folder: Path, family: str, head: Any) -> LoadedModel:
    base = write_encoder(folder / family, family)
    return load_adapter(Adapter.open(write_encoder_adapter(folder / "adapter", base, head)))


@pytest.mark.parametrize("family", ENCODERS)
@pytest.mark.parametrize("head", [NEWS, TOPICS])
def test_padding_changes_no_probability(family: str, head: Any, tmp_path: Path) -> None:
    model = loaded(tmp_path, family, head)
    inputs = [encode(model.tokenizer, row(text), 64) for text in TEXTS]
    together = label_probabilities(model, inputs, batch_size=3)
    alone = label_probabilities(model, inputs, batch_size=1)
    torch.testing.assert_close(torch.tensor(together), torch.tensor(alone), atol=1e-5, rtol=1e-4)
    logits = model.model(**model.tokenizer(TEXTS[1], return_tensors="pt")).logits[0].double()
    expected = logits.sigmoid() if head is TOPICS else logits.softmax(-1)
    torch.testing.assert_close(torch.tensor(alone[1], dtype=torch.float64), expected.detach(), atol=1e-5, rtol=1e-4)
    assert len({tuple(one) for one in together}) == len(TEXTS)


def test_one_label_is_the_likeliest_and_several_are_likelier_than_not() -> None:
    assert pick_labels(NEWS, [0.2, 0.3, 0.5]) == ("bullish",)
    assert pick_labels(TOPICS, [0.5, 0.49, 0.9]) == ("rates", "bonds")
    assert pick_labels(TOPICS, [0.1, 0.2, 0.3]) == ()


@pytest.mark.parametrize("family", ENCODERS)
def test_an_answer_is_the_likeliest_span_of_the_context(family: str, tmp_path: Path) -> None:
    model = loaded(tmp_path, family, ANSWERS)
    questions = ["what fell?", "who did banks hold capital after profit rose and costs grew?"]
    inputs = [encode(model.tokenizer, row(question, CONTEXT), 64) for question in questions]
    together = extract_answers(model, inputs, [CONTEXT, CONTEXT], batch_size=2)
    alone = extract_answers(model, inputs, [CONTEXT, CONTEXT], batch_size=1)
    for one, other, question in zip(together, alone, questions, strict=True):
        assert (one.text, one.start, one.end) == (other.text, other.start, other.end)
        assert one.probability == pytest.approx(other.probability, rel=1e-3)
        assert CONTEXT[one.start : one.end] == one.text
        assert one.probability == pytest.approx(best_by_hand(model, question)[1], rel=1e-3)
        assert one.text == best_by_hand(model, question)[0]


def best_by_hand(model: LoadedModel, question: str) -> tuple[str, float]:
    """Every span of the context, one after the other."""
    encoding = model.tokenizer(question, CONTEXT, return_tensors="pt", return_offsets_mapping=True)
    places = encoding.pop("offset_mapping")[0].tolist()
    output = model.model(**encoding)
    inside = [number for number, part in enumerate(encoding.sequence_ids(0)) if part == 1]
    starts, ends = (
        {number: float(share) for number, share in zip(inside, logits[0, inside].double().softmax(-1), strict=True)}
        for logits in (output.start_logits, output.end_logits)
    )
    spans = {(i, j): starts[i] * ends[j] for i in inside for j in inside if i <= j}
    first, last = max(spans, key=lambda span: spans[span])
    return CONTEXT[places[first][0] : places[last][1]], spans[first, last]
