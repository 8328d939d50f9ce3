"""Sweeps whose trials run side by side: the same results, also after a killed worker and a signal."""

from __future__ import annotations

import json
import os
import signal
from contextlib import chdir
from multiprocessing.forkserver import ensure_running
from pathlib import Path

import psutil
import pytest
import torch

from finetune.errors import InputError
from finetune.recipe import AdapterRecipe, load_adapter_recipe
from finetune.sweep import SweepRequest, sweep
from finetune.train import TrainRequest, train

from ..command import ROOT, Command

SEARCH = ("lora_r=2,4,8",)


def request(model: Path, corpus: Path, out: Path, workers: int) -> SweepRequest:
    recipe = AdapterRecipe(model=str(model), max_steps=4, logging_steps=1)
    return SweepRequest(corpus=corpus, output_dir=out, recipe=recipe, search=SEARCH, trials=3, workers=workers)


@pytest.mark.slow
def test_trials_side_by_side_have_the_values_of_their_settings(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 1})  # of a machine with two cores
    with chdir(ROOT):
        ensure_running()  # the server of the tests, with all libraries
    steps: list[tuple[int, int]] = []
    asked = request(tiny_model, tiny_corpus, tmp_path / "sweep", workers=2)
    result = sweep(asked, lambda trial, step: steps.append((trial, step.step)))
    assert [(trial.number, trial.state) for trial in result.trials] == [(n, "complete") for n in range(3)]
    assert {trial.settings["lora_r"] for trial in result.trials} == {2, 4, 8}
    assert sorted(steps) == [(trial, step) for trial in range(3) for step in range(1, 5)]
    alone = train(TrainRequest(tiny_corpus, tmp_path / "adapter", load_adapter_recipe(None, result.config)))
    assert alone.eval_loss == pytest.approx(result.best.value, abs=1e-5)
    assert not list(tmp_path.glob("*.trials"))


@pytest.mark.slow
@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2 and not torch.cuda.is_available(), reason="needs two cores")
def test_killed_worker_and_stopped_sweep_go_on(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    search = [word for text in SEARCH for word in ("--search", text)]
    words = [
        *("sweep", "--corpus", tiny_corpus, "--model", tiny_model, "--max-steps", 40, "--logging-steps", 1),
        *("--save-steps", 2, "--trials", 3, "--workers", 2, "--out", "sweep", "--json", *search),
    ]

    running = Command(*words, cwd=tmp_path)
    assert running.until(lambda: list(tmp_path.glob("sweep.trials/trial-*.checkpoints/checkpoint-*"))), running.stderr
    command = psutil.Process(running.pid)
    workers = set(command.children(recursive=True)) - set(command.children())  # which their server has forked
    workers.pop().kill()
    assert running.wait() == 1
    assert "A worker of the sweep died" in running.stderr
    assert "--resume" in running.stderr
    running = Command(*words, "--resume", cwd=tmp_path)
    assert running.until(lambda: "loss" in running.stderr), running.stderr
    running.send(signal.SIGTERM)
    assert running.wait() == 128 + signal.SIGTERM
    assert "Resume" in running.stderr
    alone = Command(*words[:-2], "--resume", "--workers", 1, *search, cwd=tmp_path)
    assert alone.wait() == 0, alone.stderr
    trials = json.loads(alone.stdout)["trials"]
    assert {trial["settings"]["lora_r"] for trial in trials} == {2, 4, 8}
    assert all(trial["state"] in ("complete", "pruned") for trial in trials)


def test_more_workers_than_cores_are_refused(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--workers 1000 are more than the \d+ (cores|GPUs) here"):
        sweep(request(tiny_model, tiny_corpus, tmp_path / "sweep", workers=1000))
