"""Sweeps whose trials run side by side: the same results, also after a killed worker and a signal."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from multiprocessing import active_children
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError, LostProcessError, StoppedError
from finetune.recipe import AdapterRecipe, load_adapter_recipe
from finetune.sweep import SweepRequest, sweep
from finetune.sweep.trial_run import OnStep
from finetune.train import TrainRequest, train
from finetune.workers import Done, Workers

SEARCH = ("lora_r=2,4,8",)


@pytest.fixture
def asked(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> SweepRequest:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=4, logging_steps=1, save_steps=1)
    return SweepRequest(
        corpus=tiny_corpus, output_dir=tmp_path / "sweep", recipe=recipe, search=SEARCH, trials=3, workers=2
    )


def at_second_step(act: Callable[[], object]) -> OnStep:
    """A callback that acts at the second step of the first trial to take one."""
    acted: list[int] = []

    def on_step(trial: int, step: object) -> None:
        acted.append(trial)
        if acted.count(trial) == 2 and len(acted) - acted.count(trial) < 2:
            act()

    return on_step


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_trials_side_by_side_have_the_values_of_their_settings(
    asked: SweepRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen, steps = Workers.listen, list[tuple[int, int]]()

    def hear_late(workers: Workers[Any, Any, Any]) -> Iterator[Any]:
        for word in listen(workers):
            if isinstance(word, Done):
                time.sleep(2)  # meanwhile the other trial ends, too
            yield word

    monkeypatch.setattr(Workers, "listen", hear_late)
    result = sweep(asked, lambda trial, step: steps.append((trial, step.step)))
    assert [(trial.number, trial.state) for trial in result.trials] == [(n, "complete") for n in range(3)]
    assert {trial.settings["lora_r"] for trial in result.trials} == {2, 4, 8}
    assert sorted(steps) == [(trial, step) for trial in range(3) for step in range(1, 5)]
    alone = train(TrainRequest(asked.corpus, tmp_path / "adapter", load_adapter_recipe(None, result.config)))
    assert alone.eval_loss == pytest.approx(result.best.value, abs=1e-5)
    assert not list(tmp_path.glob("*.trials"))


@pytest.mark.slow
@pytest.mark.usefixtures("two_cores")
def test_killed_worker_and_stopped_sweep_go_on(asked: SweepRequest, tmp_path: Path) -> None:
    with pytest.raises(LostProcessError, match=r"A worker .* was killed by SIGKILL.* --resume"):
        sweep(asked, at_second_step(lambda: os.kill(active_children()[0].pid or 0, signal.SIGKILL)))
    assert not active_children()
    with pytest.raises(StoppedError, match="Resume") as stopped:
        sweep(replace(asked, resume=True), at_second_step(lambda: signal.raise_signal(signal.SIGTERM)))
    assert stopped.value.exit_code == 128 + signal.SIGTERM
    assert list(tmp_path.glob("sweep.trials/trial-*.checkpoints/checkpoint-*"))
    alone = sweep(replace(asked, resume=True, workers=1))
    assert {trial.settings["lora_r"] for trial in alone.trials} == {2, 4, 8}
    assert all(trial.state in ("complete", "pruned") for trial in alone.trials)


def test_more_workers_than_cores_are_refused(asked: SweepRequest) -> None:
    with pytest.raises(InputError, match=r"--workers 1000 is more than this machine has: \d+ (CPU core|GPU)s?"):
        sweep(replace(asked, workers=1000))
