"""SIGINT and SIGTERM: the first ends a run after its step and keeps everything, the second ends it at once."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import StoppedError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe
from finetune.train import Step, TrainRequest, train
from finetune.train.trainer import SupervisedTrainer

from ..command import Command
from .kills import RECIPE, STEPS, Undisturbed, outcome, training

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


def signalled_at(step: int, number: signal.Signals) -> Callable[[Step], None]:
    def on_step(progress: Step) -> None:
        if progress.step == step:
            signal.raise_signal(number)

    return on_step


@pytest.mark.parametrize("number", CODES)
def test_signal_ends_the_run_with_a_checkpoint_to_resume_from(
    undisturbed: Undisturbed, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, number: signal.Signals
) -> None:
    arguments = training(tiny_model, tiny_corpus, save_steps=0)
    run = Command(*arguments, cwd=tmp_path)
    assert run.until_step(4), run.stderr
    run.send(number)
    assert run.wait() == CODES[number], run.stderr
    assert "Traceback" not in run.stderr
    assert run.stdout == ""
    error = run.stderr.strip().splitlines()[-1]
    assert error.startswith(f"Error: Stopped by {number.name} after step ")
    assert error.endswith("--resume")
    assert [path.name for path in tmp_path.iterdir()] == ["adapter.checkpoints"]
    again = Command(*arguments, "--resume", cwd=tmp_path)
    assert again.wait() == 0, again.stderr
    assert outcome(tmp_path) == undisturbed.outcome


@pytest.mark.parametrize("step", [5, STEPS], ids=["before an evaluation", "after the last step"])
def test_nothing_is_lost_wherever_the_signal_arrives(
    undisturbed: Undisturbed, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, step: int
) -> None:
    recipe = AdapterRecipe.model_validate(RECIPE | {"model": str(tiny_model)})
    request = TrainRequest(tiny_corpus, tmp_path / "stopped" / "adapter", recipe)
    before = [signal.getsignal(number) for number in CODES]
    with pytest.raises(StoppedError, match=f"SIGTERM after step {step} of {STEPS}"):
        train(request, signalled_at(step, signal.SIGTERM))
    assert [signal.getsignal(number) for number in CODES] == before
    result = train(TrainRequest(request.corpus, request.output_dir, recipe, resume=True))
    assert result.resumed_from == f"checkpoint-{step}"
    assert outcome(tmp_path / "stopped") == undisturbed.outcome


@pytest.mark.parametrize(("save_steps", "eval_steps"), [(0, None), (2, 5)])
def test_signal_in_the_last_evaluation_loses_nothing(
    tiny_model: Path,
    tiny_corpus: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    save_steps: int,
    eval_steps: int | None,
) -> None:
    last = 5
    changes = {"model": str(tiny_model), "save_steps": save_steps, "eval_steps": eval_steps, "max_steps": last}
    recipe = AdapterRecipe.model_validate(RECIPE | changes)
    train(TrainRequest(tiny_corpus, tmp_path / "whole" / "adapter", recipe))
    evaluate, present = SupervisedTrainer.evaluate, []

    def interrupted(trainer: SupervisedTrainer, *args: Any, **kwargs: Any) -> dict[str, float]:
        if trainer.state.global_step == last:
            present.append([path.name for path in (tmp_path / "stopped").glob("adapter.checkpoints/checkpoint-*")])
            signal.raise_signal(signal.SIGTERM)
        return evaluate(trainer, *args, **kwargs)

    request = TrainRequest(tiny_corpus, tmp_path / "stopped" / "adapter", recipe)
    monkeypatch.setattr(SupervisedTrainer, "evaluate", interrupted)
    with pytest.raises(StoppedError, match=f"SIGTERM after step {last} of {last}"):
        train(request)
    assert f"checkpoint-{last}" in present[0]  # a SIGKILL would have lost nothing either
    monkeypatch.undo()
    result = train(replace(request, resume=True))
    assert result.resumed_from == f"checkpoint-{last}"
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "whole")
    assert [path.name for path in (tmp_path / "stopped").iterdir()] == ["adapter"]


def dawdle() -> None:
    """In the process of a command, as its `before`: let each pass of a training take longer."""
    trainers: Any = SupervisedTrainer
    collate = trainers._collate

    def collate_slowly(trainer: SupervisedTrainer, rows: list[int]) -> dict[str, Any]:
        time.sleep(0.1)
        batch: dict[str, Any] = collate(trainer, rows)
        return batch

    trainers._collate = collate_slowly


def test_second_signal_ends_the_run_at_once(tiny_model: Path, tmp_path: Path) -> None:
    """With steps of many slow passes there is time for a second signal within one."""
    rows = "".join(json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) + "\n" for n in range(40))
    (tmp_path / "rows.jsonl").write_text(rows, "utf-8")
    source = str(tmp_path / "rows.jsonl")
    prepare(PrepareRequest(tmp_path / "corpus", sources=(source,), license="cc0-1.0", dedup=False))
    (tmp_path / "run").mkdir()
    steps = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 30, "save_steps": 1, "eval_steps": 0}
    run = Command(*training(tiny_model, tmp_path / "corpus", **steps), cwd=tmp_path / "run", before=dawdle)
    assert run.until(lambda: (tmp_path / "run" / "adapter.checkpoints" / "checkpoint-1").exists()), run.stderr
    assert run.runs_on_for(
        0.5
    )  # a signal while the checkpoint is being written would end the run before the second one
    run.send(signal.SIGINT)
    assert run.until(lambda: "A second signal stops at once" in run.stderr), run.stderr
    run.send(signal.SIGTERM)
    assert run.wait() == 143, run.stderr
    assert "Traceback" not in run.stderr
    assert "The last checkpoint is step 1 in" in run.stderr
    assert [path.name for path in (tmp_path / "run" / "adapter.checkpoints").glob("checkpoint-*")] == ["checkpoint-1"]


def test_signal_before_training_leaves_nothing(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    run = Command(*training(tiny_model, tiny_corpus), cwd=tmp_path)
    assert run.until(lambda: list(tmp_path.glob(".adapter.*.tmp"))), run.stderr
    run.send(signal.SIGTERM)
    assert run.wait() == 143, run.stderr
    assert "Traceback" not in run.stderr
    assert list(tmp_path.iterdir()) == []
