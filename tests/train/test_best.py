"""Evaluations during training: the best one decides which weights are written and when a run stops."""

from __future__ import annotations

import json
import shutil
import signal
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from finetune.artifacts import Adapter, Corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError, StoppedError
from finetune.models.load import load_adapter
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.scoring.labels import label_logprobs
from finetune.scoring.metrics import classification_scores
from finetune.train import TrainRequest, train
from finetune.train.best import Best
from finetune.train.progress import Evaluation
from finetune.train.trainer import SupervisedTrainer
from finetune.train.validation import LabelValidation

from ..command import Command
from .kills import checkpoints, outcome, run_with_kills, training

STEPS = 30
# A constant rate, so that a run of fewer steps has the weights of a step of this one.
SETTINGS: dict[str, Any] = {
    "max_steps": STEPS,
    "learning_rate": 1e-2,
    "lr_scheduler_type": "constant_with_warmup",
    "warmup_ratio": 0,
    "eval_steps": 2,
    "patience": 3,
}


@pytest.fixture(scope="session")
def misleading(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A corpus whose validation labels contradict its training labels: the better it is learnt, the worse they are met."""
    signs = {"fell": ("bearish", "bullish"), "held": ("neutral", "bearish"), "rose": ("bullish", "neutral")}
    rows = [
        {"text": f"Shares of company {number} {sign} today.", "label": labels[held_out], "split": split}
        for held_out, split in enumerate(("train", "validation"))
        for number in range(100 * held_out, 100 * held_out + (12, 4)[held_out])
        for sign, labels in signs.items()
    ]
    folder = tmp_path_factory.mktemp("misleading")
    (folder / "news.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    source = str(folder / "news.jsonl")
    prepare(PrepareRequest(folder / "corpus", sources=(source,), license="cc0-1.0", dedup=False))
    return folder / "corpus"


@pytest.fixture(scope="session")
def settings(tiny_model: Path) -> AdapterRecipe:
    return AdapterRecipe.model_validate(SETTINGS | {"model": str(tiny_model)})


@pytest.fixture(scope="session")
def early(settings: AdapterRecipe, misleading: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that stopped early."""
    folder = tmp_path_factory.mktemp("early")
    train(TrainRequest(misleading, folder / "adapter", settings))
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    result: dict[str, Any] = Adapter.open(folder / "adapter").manifest["result"]
    return result


def weights(adapter: Path) -> dict[str, torch.Tensor]:
    return load_file(adapter / "adapter_model.safetensors")


def evaluations(adapter: Path) -> dict[int, dict[str, float]]:
    lines = [json.loads(line) for line in (adapter / "training.jsonl").read_text("utf-8").splitlines()]
    return {line["step"]: line for line in lines if "eval_loss" in line}


@pytest.mark.parametrize("metric", ["loss", "auto"])
def test_run_stops_when_validation_gets_worse_and_writes_the_best_step(
    settings: AdapterRecipe, misleading: Path, tmp_path: Path, metric: str
) -> None:
    recipe = settings.model_copy(update={"metric_for_best_model": metric})
    result = train(TrainRequest(misleading, tmp_path / "whole", recipe))
    measured = evaluations(tmp_path / "whole")
    assert result.stopped_early
    assert result.planned_steps == STEPS
    assert result.adapter_step is not None
    assert result.steps == result.adapter_step + 2 * SETTINGS["patience"] < STEPS
    assert result.metric == ("loss" if metric == "loss" else "weighted_f1")
    best = measured[result.adapter_step]
    assert result.eval_loss == best["eval_loss"]
    if metric == "loss":
        assert best["eval_loss"] == min(line["eval_loss"] for line in measured.values())
    else:
        assert best["eval_weighted_f1"] == max(line["eval_weighted_f1"] for line in measured.values())
        assert result.eval_figures["weighted_f1"] == best["eval_weighted_f1"]
    shorter = recipe.model_copy(update={"max_steps": result.adapter_step, "load_best_model_at_end": False})
    train(TrainRequest(misleading, tmp_path / "shorter", shorter))
    kept, same = weights(tmp_path / "whole"), weights(tmp_path / "shorter")
    assert all(torch.equal(kept[name], same[name]) for name in same)


def test_last_step_is_written_if_asked_for(settings: AdapterRecipe, misleading: Path, tmp_path: Path) -> None:
    last = settings.model_copy(update={"load_best_model_at_end": False, "patience": 0, "max_steps": 12})
    result = train(TrainRequest(misleading, tmp_path / "last", last))
    assert (result.steps, result.adapter_step, result.stopped_early) == (12, 12, False)
    assert result.eval_loss == evaluations(tmp_path / "last")[12]["eval_loss"]


def test_scores_are_those_of_the_adapter_that_is_written(early: Path, misleading: Path) -> None:
    result = result_of(early)
    loaded = load_adapter(Adapter.open(early / "adapter"))
    rows = read_split(Corpus.open(misleading), "validation")
    logprobs = label_logprobs(loaded, rows, batch_size=4)
    answers = [row.choices[scores.index(max(scores))] for row, scores in zip(rows, logprobs, strict=True)]
    assert result["eval_figures"] == pytest.approx(classification_scores([str(row.label) for row in rows], answers))
    card = (early / "adapter" / "README.md").read_text("utf-8")
    step = f"{result['adapter_step']} of {STEPS}, by held-out weighted f1; stopped early, after step {result['steps']}"
    assert step in card


@pytest.mark.parametrize("packing", [True, False])
def test_scoring_labels_changes_no_weight(
    settings: AdapterRecipe, misleading: Path, tmp_path: Path, packing: bool
) -> None:
    recipe = settings.model_copy(
        update={"max_steps": 4, "patience": 0, "load_best_model_at_end": False, "packing": packing, "lora_dropout": 0.1}
    )
    for name, every in (("never", 0), ("always", 1)):
        train(TrainRequest(misleading, tmp_path / name, recipe.model_copy(update={"eval_steps": every})))
    never, always = weights(tmp_path / "never"), weights(tmp_path / "always")
    assert all(torch.equal(never[name], always[name]) for name in never)
    assert len(evaluations(tmp_path / "always")) == 4


def test_rows_without_labels_are_compared_by_loss(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), learning_rate=1e-2, max_steps=10)
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    assert result.metric == "loss"
    assert max(evaluations(tmp_path / "adapter")) == 10
    assert all("eval_weighted_f1" not in line for line in evaluations(tmp_path / "adapter").values())


def test_killed_run_stops_early_with_the_same_bytes(tiny_model: Path, misleading: Path, tmp_path: Path) -> None:
    arguments = training(tiny_model, misleading, **SETTINGS, save_steps=3)
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Command(*arguments, cwd=tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr
    assert whole.result["steps"] < STEPS
    seconds = whole.result["seconds"]
    outcomes = run_with_kills(arguments, tmp_path / "killed", at_random=1, while_writing=1, seed=6, seconds=seconds)
    assert all(one == outcome(tmp_path / "whole") for one in outcomes)


def stopped_at(step: int, moment: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send SIGTERM in or after the evaluation of a step."""
    evaluate, answer = SupervisedTrainer.evaluate, LabelValidation.answer
    current = 0

    def noting(trainer: SupervisedTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal current
        current = trainer.state.global_step
        figures = evaluate(trainer, *args, **kwargs)
        if moment == "after" and current == step:
            signal.raise_signal(signal.SIGTERM)
        return figures

    def answering(validation: LabelValidation, *args: Any) -> list[str]:
        if moment == "in" and current == step:
            signal.raise_signal(signal.SIGTERM)
        return answer(validation, *args)

    monkeypatch.setattr(SupervisedTrainer, "evaluate", noting)
    monkeypatch.setattr(LabelValidation, "answer", answering)


@pytest.mark.parametrize("moment", ["in", "after"])
@pytest.mark.parametrize("which", ["best", "later", "final"])
def test_signal_at_an_evaluation_loses_nothing(
    settings: AdapterRecipe,
    misleading: Path,
    early: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
    moment: str,
) -> None:
    best, final = result_of(early)["adapter_step"], result_of(early)["steps"]
    step = {"best": best, "later": best + 2, "final": final}[which]
    last = step + (moment == "after" and which != "final")  # the step after which the run stops
    request = TrainRequest(misleading, tmp_path / "stopped" / "adapter", settings)
    stopped_at(step, moment, monkeypatch)
    with pytest.raises(StoppedError, match=f"SIGTERM after step {last} of {STEPS}"):
        train(request)
    monkeypatch.undo()
    assert checkpoints(tmp_path / "stopped")[-1].name == f"checkpoint-{last}"
    train(replace(request, resume=True))
    assert outcome(tmp_path / "stopped") == outcome(early)


def test_damaged_weights_of_the_best_step_are_not_used(
    settings: AdapterRecipe, misleading: Path, early: Path, tmp_path: Path
) -> None:
    step = result_of(early)["adapter_step"] + 1
    request = TrainRequest(misleading, tmp_path / "adapter", settings.model_copy(update={"save_steps": 1}))
    with pytest.raises(StoppedError):
        train(request, lambda done: signal.raise_signal(signal.SIGTERM) if done.step == step else None)
    (checkpoints(tmp_path)[-1] / "best.safetensors").write_bytes(b"")
    result = train(replace(request, resume=True))
    assert result.resumed_from == f"checkpoint-{step - 1}"
    assert outcome(tmp_path) == outcome(early)


def test_evaluation_settings_may_change_only_if_no_weight_depends_on_them(
    settings: AdapterRecipe, misleading: Path, tmp_path: Path
) -> None:
    request = TrainRequest(misleading, tmp_path / "adapter", settings)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 3 else None)
    changed = settings.model_copy(update={"eval_steps": 3, "patience": 4})
    with pytest.raises(InputError, match=r"eval_steps was 2 and is now 3; patience was 3 and is now 4"):
        train(replace(request, recipe=changed, resume=True))
    shutil.rmtree(tmp_path / "adapter.checkpoints")
    plain = settings.model_copy(update={"load_best_model_at_end": False, "patience": 0, "max_steps": 6})
    request = replace(request, recipe=plain)
    with pytest.raises(StoppedError):
        train(request, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 3 else None)
    result = train(replace(request, recipe=plain.model_copy(update={"eval_steps": 3}), resume=True))
    assert result.resumed_from == "checkpoint-3"


def test_equal_scores_are_decided_by_the_loss() -> None:
    weight = {"weight": nn.Parameter(torch.zeros(1))}
    best = Best("accuracy", patience=2, keeps_weights=True)
    for step, (accuracy, loss) in enumerate([(0.5, 1.0), (0.5, 0.9), (0.5, 0.9), (0.4, 0.1)], 1):
        weight["weight"].data[:] = step
        best.add(Evaluation(step, {"accuracy": accuracy, "loss": loss}), weight)
        assert best.is_final == (step == 4)
    best.apply(weight)
    assert weight["weight"].tolist() == [2]


@pytest.mark.parametrize(
    ("rows", "held_out", "changes", "every"),
    [
        (1000, 50, {}, 63),  # 375 steps, 6 evaluations: two per epoch
        (1000, 50, {"num_train_epochs": 1}, 32),  # 125 steps; four cost a tenth
        (1000, 50, {"num_train_epochs": 0.5}, 21),  # 63 steps; at least three
        (1000, 500, {}, 125),
        (1000, 0, {}, 0),
        (10, 5, {"max_steps": 2}, 1),
        (1000, 50, {"eval_steps": 7}, 7),
    ],
)
def test_evaluations_are_a_few_per_run_and_cost_little(
    rows: int, held_out: int, changes: dict[str, Any], every: int
) -> None:
    assert AdapterRecipe(**changes).for_corpus(rows, held_out).eval_steps == every


def test_settings_that_ask_for_no_evaluation_are_no_wish_for_one(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    none = {"eval_steps": 0, "patience": 0, "metric_for_best_model": "auto", "max_steps": 1}
    result = train(TrainRequest(tiny_corpus, tmp_path / "out", AdapterRecipe(model=str(tiny_model), **none)))
    assert (result.metric, result.eval_loss, result.adapter_step) == (None, None, 1)


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"patience": 3}, "--patience needs evaluations during training, but the corpus at .* has no validation split"),
        ({"metric_for_best_model": "loss"}, "--metric-for-best-model needs evaluations"),
        ({"patience": 3, "eval_steps": 0}, "--eval-steps 0 turns them off. Leave --eval-steps out"),
    ],
)
def test_settings_of_evaluations_without_any_are_refused(
    tiny_model: Path, tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    rows = "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(20))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    source = str(tmp_path / "rows.jsonl")
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), license="cc0-1.0", split_ratio="1/0/0"))
    with pytest.raises(InputError, match=reason):
        train(TrainRequest(tmp_path / "corpus", tmp_path / "out", AdapterRecipe(model=str(tiny_model), **changes)))


def test_labels_cannot_decide_where_there_are_none(tiny_model: Path, tmp_path: Path) -> None:
    rows = "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(40))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    source = str(tmp_path / "rows.jsonl")
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), license="cc0-1.0", split_ratio="0.5/0.5/0"))
    recipe = AdapterRecipe(model=str(tiny_model), metric_for_best_model="macro_f1")
    with pytest.raises(InputError, match="the validation split has no rows with a label"):
        train(TrainRequest(tmp_path / "corpus", tmp_path / "out", recipe))
