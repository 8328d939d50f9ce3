"""An answer to a row with labels is made of its labels and of nothing else."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from finetune.models.chat_template import render_answer
from finetune.models.load import LoadedModel
from finetune.records import NO_LABEL, SEPARATOR, Example
from finetune.scoring.generation import generate
from finetune.scoring.label_decoding import label_answers
from finetune.scoring.labels import score_labels
from finetune.scoring.tasks import write_labels

from ..conftest import chat

LIMIT = 60  # tokens of an answer
TOPICS = ("card", "card payment", "top up", "transfer", "exchange rate", "cash", "account")
EVENTS = (
    "arrival",
    "declined",
    "delivery",
    "fee",
    "fee charged",
    "limit",
    "lost",
    "not working",
    "pending",
    "stolen",
    "swap",
)
LABELS = ("card", *(f"{topic} {event}" for topic in TOPICS for event in EVENTS))[:77]


def row(number: int, *labels: str) -> Example:
    return Example(
        str(number), chat(f"Question {number}?", write_labels(labels)), "classification", None, LABELS, labels=labels
    )


def is_valid(text: str) -> bool:
    parts = text.split(SEPARATOR)
    return text == NO_LABEL or (set(parts) <= set(LABELS) and len(set(parts)) == len(parts))


def test_any_walk_along_allowed_tokens_is_an_answer(loaded: LoadedModel) -> None:
    assert len(LABELS) == 77
    grammar, draw, lengths = label_answers(loaded.tokenizer, row(0)), random.Random(0), set()
    allow = grammar.allow(LIMIT)
    for _ in range(200):
        tokens: tuple[int, ...] = ()
        while grammar.end not in tokens:
            tokens = (*tokens, draw.choice(allow(tokens)))
            assert len(tokens) <= LIMIT
        text = str(loaded.tokenizer.decode(list(tokens), skip_special_tokens=True)).strip()
        assert is_valid(text), text
        lengths.add(text.count(SEPARATOR))
    assert {0, 1, 2} <= lengths


@pytest.mark.parametrize("labels", [(), *((label,) for label in LABELS), LABELS[:3], ("card", "card fee", "card lost")])
def test_every_answer_that_training_shows_is_allowed(loaded: LoadedModel, labels: tuple[str, ...]) -> None:
    allow = label_answers(loaded.tokenizer, row(0)).allow(1000)
    tokens = render_answer(loaded.tokenizer, row(0).prompt, write_labels(labels))
    for number, token in enumerate(tokens):
        assert token in allow(tuple(tokens[:number]))


@pytest.mark.parametrize("max_new_tokens", [1, 40])
def test_generated_answers_are_labels(loaded: LoadedModel, max_new_tokens: int) -> None:
    rows = [row(number, "cash fee") for number in range(3)]
    free = replace(rows[0], choices=(), labels=None, task="qa")
    *answers, text = generate(loaded, [*rows, free], batch_size=4, max_new_tokens=max_new_tokens)
    assert all(map(is_valid, answers)), answers
    assert not is_valid(text)
    assert text == generate(loaded, [free], batch_size=1, max_new_tokens=max(max_new_tokens, 40))[0][: len(text)]


def test_one_label_is_the_one_that_greedy_decoding_gives(loaded: LoadedModel) -> None:
    rows = [replace(row(number), label=LABELS[0], labels=None) for number in range(3)]
    scores = score_labels(loaded, rows, batch_size=3, with_priors=False)
    assert generate(loaded, rows, batch_size=3, max_new_tokens=1) == [LABELS[one.greedy] for one in scores]
