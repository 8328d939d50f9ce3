"""Trainings in several processes, and what they must have in common with a training in one."""

from __future__ import annotations

import json
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file


def fork_ranks() -> None:
    """Fork the other processes, which saves the time to import the libraries once more."""
    from finetune.train.ranks import start

    start.processes = get_context("fork")


def journal(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "adapter/training.jsonl").read_text("utf-8").splitlines()]


def assert_same(folder: Path, expected: Path) -> None:
    """The adapter and the journal are those of another folder, up to the rounding of sums in another order.

    AdamW makes steps of about the learning rate, 1e-2, whatever the size of a gradient: weights may differ by a thousandth.
    """
    ours, theirs = (load_file(each / "adapter/adapter_model.safetensors") for each in (folder, expected))
    assert ours.keys() == theirs.keys()
    for name, weight in theirs.items():
        torch.testing.assert_close(ours[name], weight, rtol=1e-4, atol=1e-5)
    for line, other in zip(journal(folder), journal(expected), strict=True):
        assert {**line, "seconds": 0} == pytest.approx({**other, "seconds": 0}, rel=1e-4)
