"""Predicted and measured peak memory of training, point by point: `slmtune plan`'s arithmetic against real runs.

    python benchmarks/plan_accuracy.py [--folder FOLDER] [--steps 2] [--points N]

A point is a model with random weights in a real shape, the lengths of the rows of a batch, and options. Every forward pass
has all of these lengths. Points run one after another, each in a process of its own; the exit code is 1 if an error is above
10 %. Constants of the prediction were fitted to, or derived from, the points marked "fitted".
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent / "parts"
BAR = 0.10
RAGGED = (256, 160, 96, 64)
PADDED, RECOMPUTED = "--no-packing", "--gradient-checkpointing"


@dataclass(frozen=True)
class Point:
    """A run to predict and to measure."""

    model: str
    lengths: tuple[int, ...]  # of the rows of every forward pass
    options: tuple[str, ...] = ()
    fitted: bool = False


POINTS = (
    Point("smollm2-135m", (64,) * 8, fitted=True),
    Point("smollm2-135m", (256,) * 4, fitted=True),
    Point("smollm2-135m", (256,) * 8, fitted=True),
    Point("smollm2-135m", (1024,)),
    Point("smollm2-135m", (512,) * 2, (RECOMPUTED,)),
    Point("smollm2-135m", RAGGED, (PADDED,)),
    Point("qwen2-narrow", RAGGED),
    Point("qwen2-narrow", RAGGED, (PADDED,)),
    Point("qwen2-narrow", (512,) * 4, (RECOMPUTED,), fitted=True),
    Point("gemma-3-270m", RAGGED),
    Point("gemma-3-270m", RAGGED, (PADDED,)),
    Point("gemma-3-270m", (512,) * 2, (RECOMPUTED,)),
    Point("phi-small", (512,) * 2),
    Point("phi-small", (512,) * 2, (RECOMPUTED,), fitted=True),
)


def call(*command: str | Path) -> str:
    """Run a Python command and return what it prints."""
    return subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def measure(point: Point, folder: Path, steps: int) -> tuple[int, int]:
    """The predicted and the measured peak of a point, in bytes."""
    model, lengths = folder / point.model, [str(length) for length in point.lengths]
    if not model.is_dir():
        call(PARTS / "random_model.py", point.model, model)
    corpus = folder / "-".join([point.model, *lengths])
    if not corpus.is_dir():
        call(PARTS / "exact_rows.py", model, corpus, "--rows", str(len(lengths)), "--length", *lengths)
    command: list[str | Path] = [
        "-m",
        "finetune",
        "train",
        "--model",
        model,
        "--corpus",
        corpus,
        "--out",
        folder / "adapter",
    ]
    command += ["--overwrite", "--json", "--eval-steps", "0", "--save-steps", "0", *point.options]
    command += ["--max-length", str(max(point.lengths)), "--per-device-train-batch-size", str(len(lengths))]
    planned: dict[str, Any] = json.loads(call(*command, "--dry-run"))["memory"]
    trained: dict[str, Any] = json.loads(call(*command, "--max-steps", str(steps)))
    return planned["peak_bytes"], trained["peak_memory_bytes"]


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--points", type=int, default=len(POINTS))
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    worst = 0.0
    print(f"{'model':<14}{'rows':<20}{'predicted':>10}{'measured':>10}{'error':>8}  MiB")
    for point in POINTS[: arguments.points]:
        predicted, measured = measure(point, folder, arguments.steps)
        error = predicted / measured - 1
        worst = max(worst, abs(error))
        same = len(set(point.lengths)) == 1
        rows = f"{len(point.lengths)} x {point.lengths[0]}" if same else ", ".join(map(str, point.lengths))
        notes = " ".join([*point.options, *(["(fitted)"] if point.fitted else [])])
        figures = f"{predicted / 2**20:>10.0f}{measured / 2**20:>10.0f}{error:>8.1%}"
        print(f"{point.model:<14}{rows:<20}{figures}  {notes}", flush=True)
    raise SystemExit(worst > BAR)


if __name__ == "__main__":
    main()
