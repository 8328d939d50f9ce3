"""Sixteen kills at random times, in runs whose epochs and windows end at different steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..command import Command
from .kills import outcome, run_with_kills, training

SHAPES = {
    "windows that do not divide an epoch": {},
    "one batch per step": {"gradient_accumulation_steps": 1, "save_steps": 5, "save_total_limit": 1},
    "a checkpoint every step": {"per_device_train_batch_size": 7, "gradient_accumulation_steps": 2, "save_steps": 1},
    "rows that share a beginning": {"lora_dropout": 0},
}
KILLS_AT_RANDOM, KILLS_WHILE_WRITING = 2, 2  # of each shape


@pytest.mark.slow
@pytest.mark.parametrize("shape", SHAPES)
def test_killed_runs_end_like_an_undisturbed_one(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, shape: str
) -> None:
    arguments = training(tiny_model, tiny_corpus, max_steps=20, **SHAPES[shape])
    (tmp_path / "whole").mkdir()
    (tmp_path / "killed").mkdir()
    whole = Command(*arguments, cwd=tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr
    outcomes = run_with_kills(
        arguments,
        tmp_path / "killed",
        at_random=KILLS_AT_RANDOM,
        while_writing=KILLS_WHILE_WRITING,
        seed=len(shape),
        seconds=whole.result["seconds"],
    )
    assert all(one == outcome(tmp_path / "whole") for one in outcomes)
