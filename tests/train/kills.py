"""A training run that is killed again and again, and the same run without kills."""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..command import Command

STEPS = 16
# Batches of 4 out of 30 rows in windows of 3: neither the last window of an epoch nor the last batch is full.
RECIPE: dict[str, object] = {
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 3,
    "lora_dropout": 0.1,
    "learning_rate": 1e-2,
    "max_steps": STEPS,
    "save_steps": 2,
    "eval_steps": 5,
    "logging_steps": 3,
}


@dataclass(frozen=True)
class Undisturbed:
    """A run that nothing stops."""

    arguments: list[object]
    outcome: dict[str, Any]
    seconds: float


def training(model: Path, corpus: Path, **changes: object) -> list[object]:
    """Arguments of `slmtune train` with the recipe above, into the folder `adapter`."""
    flags = [part for name, value in (RECIPE | changes).items() for part in ("--" + name.replace("_", "-"), value)]
    return ["train", "--corpus", corpus, "--model", model, "--out", "adapter", "--json", *flags]


def checkpoints(folder: Path) -> list[Path]:
    """Oldest first; none if a run that ends has just removed their folder."""
    parent = folder / "adapter.checkpoints"
    try:
        names = [name for name in os.listdir(parent) if name.startswith("checkpoint-")]
    except FileNotFoundError:
        return []
    return sorted((parent / name for name in names), key=lambda path: int(path.name.rsplit("-", 1)[1]))


def newest(folder: Path) -> int:
    return int(checkpoints(folder)[-1].name.rsplit("-", 1)[1])


def outcome(folder: Path) -> dict[str, Any]:
    """The parts of a finished run that must not depend on kills."""
    adapter = folder / "adapter"
    result = json.loads((adapter / "manifest.json").read_text("utf-8"))["result"]
    lines = [json.loads(line) for line in (adapter / "training.jsonl").read_text("utf-8").splitlines()]
    clocks = ("seconds", "tokens_per_second", "peak_memory_bytes", "resumed_from")
    return {
        "weights": (adapter / "adapter_model.safetensors").read_bytes(),
        "result": {name: value for name, value in result.items() if name not in clocks},
        "journal": [{name: value for name, value in line.items() if name != "seconds"} for line in lines],
    }


def run_with_kills(
    arguments: list[object], folder: Path, *, at_random: int, while_writing: int, seed: int, seconds: float
) -> list[dict[str, Any]]:
    """Kill a run several times with SIGKILL, resume it to its end, and return the outcome of each run that ended.

    Args:
        at_random: kills at a moment drawn from the `seconds` that an undisturbed run takes.
        while_writing: kills while a checkpoint is being written.
    """
    random_ = random.Random(seed)
    plan = ["at random"] * at_random + ["while writing"] * while_writing
    random_.shuffle(plan)
    outcomes = []
    while plan:
        run = Command(*arguments, "--resume", cwd=folder)
        if plan[-1] == "at random":
            alive = run.runs_on_for(random_.uniform(0, seconds))
        else:
            alive = run.until(_written(folder / "adapter.checkpoints", random_.randint(1, 3)))
        if alive:
            run.kill()
            plan.pop()
        else:
            outcomes.append(_end(run, folder))
            shutil.rmtree(folder / "adapter")
    return [*outcomes, _end(Command(*arguments, "--resume", cwd=folder), folder)]


def _written(checkpoints: Path, count: int) -> Callable[[], bool]:
    """A test whether the writing of `count` checkpoints has begun since its first call."""
    seen: set[str] = set()

    def writing() -> bool:
        seen.update(path.name for path in checkpoints.glob(".checkpoint-*.tmp"))
        return len(seen) >= count

    return writing


def _end(run: Command, folder: Path) -> dict[str, Any]:
    assert run.wait() == 0, run.stderr
    return outcome(folder)
