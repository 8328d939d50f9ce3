"""A GGUF file as a contestant: the tiny model in 32 bits gives the answers that it gives in transformers."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.evaluate import EvalRequest, evaluate
from finetune.evaluate.contestants.gguf import score_choices, sum_answer
from finetune.models.chat_template import render_conversations, render_prompt
from finetune.models.find import find_base
from finetune.models.gguf.families import read_shape
from finetune.models.gguf.writer import write_model
from finetune.models.llama_cpp import GgufModel
from finetune.models.tokenizer import load_tokenizer
from finetune.records import Example
from finetune.scoring.labels import score_labels
from finetune.scoring.pairs import pair_logprobs

from ..conftest import chat
from ..serve.conftest import load

CHOICES = ("bearish", "bullish", "bear", "neutral")


@pytest.fixture(scope="module")
def tiny_gguf(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    write_model(tiny_model, read_shape(tiny_model), tokenizer, file, precision="f32", name="tiny")
    return file


def rows(count: int) -> list[Example]:
    return [
        Example(f"row-{n}", chat(f"Shares of company {n} rose?", "bullish"), "classification", "bullish", CHOICES)
        for n in range(count)
    ]


def test_prompts_have_the_same_ids(tiny_gguf: Path, tiny_model: Path) -> None:
    tokenizer = load_tokenizer(tiny_model, find_base(str(tiny_model)))
    with GgufModel(tiny_gguf) as model:
        for row in rows(3):
            assert render_prompt(model.tokenizer, row.prompt) == render_prompt(tokenizer, row.prompt)


def test_labels_have_the_same_probabilities(tiny_gguf: Path, tiny_model: Path) -> None:
    expected = score_labels(load(tiny_model), rows(4), batch_size=2)
    with GgufModel(tiny_gguf) as model:
        model.reserve(300, len(CHOICES))
        given = score_choices(model, rows(4), lambda rows: None)
    for one, other in zip(given, expected, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-3)
        assert one.priors == pytest.approx(other.priors, abs=1e-3)
        assert (one.lengths, one.greedy) == (other.lengths, other.greedy)


def test_pairs_have_the_same_probabilities(tiny_gguf: Path, tiny_model: Path) -> None:
    questions = ("Shares rose?", "Costs grew and the outlook fell?")
    pairs = [Example(text, chat(text, "yes, they rose"), "preference", rejected=chat(text, "no")) for text in questions]
    expected = pair_logprobs(load(tiny_model), pairs, batch_size=2)
    with GgufModel(tiny_gguf) as model:
        model.reserve(200, 1)
        given = [[sum_answer(model, one) for one in render_conversations(model.tokenizer, row)] for row in pairs]
    assert given == [pytest.approx(pair, abs=1e-3) for pair in expected]


def test_file_answers_as_the_same_model_of_transformers(
    tiny_gguf: Path, tiny_adapter: Path, tiny_corpus: Path, tiny_model: Path, tmp_path: Path
) -> None:
    request = EvalRequest(
        *(tiny_adapter, tiny_corpus, tmp_path / "eval"),
        vs=(f"here={tiny_model}", str(tiny_gguf)),
        max_new_tokens=12,
        few_shot=0,
    )
    result = evaluate(request)
    samples = [json.loads(line) for line in (tmp_path / "eval" / "samples.jsonl").read_text("utf-8").splitlines()]
    assert [sample["tiny"] for sample in samples] == [sample["here"] for sample in samples]
    assert {sample["task"] for sample in samples} == {"news", "questions"}
    for task in result.tasks.values():
        assert task.headline["tiny"] == pytest.approx(task.headline["here"])


def test_broken_file_is_refused(tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "broken.gguf").write_bytes(b"GGUF and nothing else")
    (tmp_path / "other.gguf").write_bytes(b"something else")
    for name in ("broken.gguf", "other.gguf"):
        with pytest.raises(InputError, match="cannot be loaded by llama"), GgufModel(tmp_path / name):
            pass
    with pytest.raises(InputError, match="There is no file"):
        evaluate(EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", vs=(str(tmp_path / "missing.gguf"),)))


def test_missing_library_is_named_before_anything_is_loaded(
    tiny_gguf: Path, tiny_adapter: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "cyllama" else find_spec(name))
    request = EvalRequest(tiny_adapter, tiny_corpus, tmp_path / "out", vs=(str(tiny_gguf),), model="not/loaded")
    with pytest.raises(InputError, match=r"pip install 'slmtune\[gguf\]'"):
        evaluate(request)
