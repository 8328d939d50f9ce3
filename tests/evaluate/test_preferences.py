"""Pairs of answers are scored by which of the two a model prefers: the base model, and the adapter."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.merge import MergeRequest, merge_adapter
from finetune.models.load import load_adapter
from finetune.recipe import AdapterRecipe
from finetune.records import Example
from finetune.scoring.pairs import pair_logprobs
from finetune.train import TrainRequest, train

from ..conftest import chat
from ..corpora import write_corpus


def pair(number: int) -> Example:
    """Pairs of which the base model, which prefers short answers, prefers some of the chosen ones."""
    question = f"What of bank {number}?"
    chosen, rejected = f"Bank {number} held, dear customer.", f"Bank {number} fell." + (1 + number % 4) * " So what?"
    return Example(f"pair-{number}", chat(question, chosen), "preference", rejected=chat(question, rejected))


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rows = [pair(number) for number in range(36)]
    return write_corpus(tmp_path_factory.mktemp("pairs") / "corpus", {"train": rows[:20], "test": rows[20:]}).path


@pytest.fixture(scope="module")
def adapter(corpus: Path, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("preferences") / "adapter"
    recipe = AdapterRecipe(model=str(tiny_model), method="dpo", learning_rate=3e-3, num_train_epochs=10)
    train(TrainRequest(corpus, folder, recipe))
    return folder


@pytest.fixture(scope="module")
def result(adapter: Path, corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> EvalResult:
    return evaluate(EvalRequest(adapter, corpus, tmp_path_factory.mktemp("reports") / "eval", forgetting=False))


def test_accuracy_of_preference_is_that_of_the_log_probabilities(result: EvalResult, adapter: Path) -> None:
    (task,) = result.tasks.values()
    rows = [pair(number) for number in range(20, 36)]
    loaded = load_adapter(Adapter.open(adapter))
    after = pair_logprobs(loaded, rows, batch_size=4)
    with loaded.model.disable_adapter():
        before = pair_logprobs(loaded, rows, batch_size=4)
    share = {name: sum(a > b for a, b in pairs) / 16 for name, pairs in (("base", before), ("adapter", after))}
    gains = [(new[0] - old[0], new[1] - old[1]) for old, new in zip(before, after, strict=True)]
    assert (task.n, task.metric) == (16, "preference_accuracy")
    assert task.base == {"preference_accuracy": share["base"]}
    reward_accuracy = sum(chosen > rejected for chosen, rejected in gains) / 16
    assert task.adapter == {"preference_accuracy": share["adapter"], "reward_accuracy": reward_accuracy}
    assert 0 < share["base"] < share["adapter"] == reward_accuracy == 1
    assert task.delta == share["adapter"] - share["base"]
    assert task.ci95[0] > 0


def test_page_and_samples_show_the_preferred_answers(result: EvalResult) -> None:
    page = result.report.read_text("utf-8")
    assert "Preference accuracy" in page
    assert "Reward accuracy is the share of pairs" in page
    assert "nats per pair of answers" in page
    samples = [json.loads(line) for line in (result.report.parent / "samples.jsonl").read_text("utf-8").splitlines()]
    rows = {pair(number).id: pair(number) for number in range(20, 36)}
    for sample in samples:
        row, share = rows[sample["id"]], sample["base_probabilities"]
        preferred = row.answer if share["chosen"] > 0.5 else row.rejected[-1].content
        assert (sample["reference"], sample["base"], sample["adapter"]) == (row.answer, preferred, row.answer)
        assert share["chosen"] + share["rejected"] == pytest.approx(1)
    assert {sample["base"] == sample["reference"] for sample in samples} == {True, False}


def test_adapter_of_preferences_is_merged(adapter: Path, corpus: Path, tmp_path: Path) -> None:
    result = merge_adapter(MergeRequest(adapter, tmp_path / "model", corpus))
    assert result.verified
    assert result.drift.prompts == 16  # all that are held out


@pytest.mark.parametrize("label", ["undesirable", None])
def test_rows_with_a_single_answer_are_refused(label: str | None, tiny_adapter: Path, tmp_path: Path) -> None:
    single = Example("alone", chat("Hello?", "Go away."), "preference", label=label)
    corpus = write_corpus(tmp_path / "corpus", {"test": [pair(0), single]}).path
    with pytest.raises(InputError, match=r"Row alone of the test split .*: it has no rejected answer"):
        evaluate(EvalRequest(tiny_adapter, corpus, tmp_path / "report", forgetting=False))
    assert not (tmp_path / "report").exists()
