"""Predicted and measured peak memory of training, point by point: `slmtune plan`'s arithmetic against real runs.

    python benchmarks/plan_accuracy.py [--folder FOLDER] [--steps 2] [--points N]

Every point is a model, a row length and a batch size; all rows have exactly that length. Models other than the default
one have random weights in a real shape. Points run one after another; the exit code is 1 if an error is above 10 %.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

PARTS = Path(__file__).parent / "parts"
BAR = 0.10
POINTS: tuple[tuple[str, int, int, tuple[str, ...]], ...] = (
    ("smollm2-135m", 64, 1, ()),
    ("smollm2-135m", 64, 8, ()),
    ("smollm2-135m", 256, 1, ()),
    ("smollm2-135m", 256, 8, ()),
    ("smollm2-135m", 1024, 1, ()),
    ("smollm2-135m", 1024, 1, ("--gradient-checkpointing",)),
    ("qwen2.5-0.5b", 256, 2, ()),
    ("gemma-3-270m", 256, 2, ()),
)


def call(*command: str | Path) -> str:
    """Run a Python command and return what it prints."""
    return subprocess.run([sys.executable, *map(str, command)], check=True, stdout=subprocess.PIPE, text=True).stdout


def main() -> None:
    """Measure every point and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, default=None)
    parser.add_argument("--steps", type=int, default=2)
    parser.add_argument("--points", type=int, default=len(POINTS))
    arguments = parser.parse_args()
    folder = arguments.folder or Path(tempfile.mkdtemp())
    worst = 0.0
    print(f"{'model':<14}{'length':>7}{'batch':>6}{'predicted':>11}{'measured':>10}{'error':>8}  MiB")
    for model, length, batch, options in POINTS[: arguments.points]:
        source = model
        if model != "smollm2-135m":
            source = str(folder / model)
            if not Path(source).is_dir():
                call(PARTS / "random_model.py", model, source)
        corpus = folder / f"{model}-{length}"
        if not corpus.is_dir():
            call(PARTS / "exact_rows.py", source, corpus, "--rows", "16", "--length", str(length))
        out = folder / f"{model}-{length}-{batch}{''.join(options)}"
        command = [
            "-m",
            "finetune",
            "train",
            "--model",
            source,
            "--corpus",
            corpus,
            "--out",
            out,
            "--overwrite",
            "--json",
        ]
        command += ["--max-length", str(length), "--per-device-train-batch-size", str(batch), *options]
        command += ["--eval-steps", "0", "--save-steps", "0"]
        planned: dict[str, Any] = json.loads(call(*command, "--dry-run"))["memory"]
        measured = json.loads(call(*command, "--max-steps", str(arguments.steps)))["peak_memory_bytes"]
        error = planned["peak_bytes"] / measured - 1
        worst = max(worst, abs(error))
        name = model + ("*" if options else "")
        predicted = planned["peak_bytes"] / 2**20
        print(f"{name:<14}{length:>7}{batch:>6}{predicted:>11.0f}{measured / 2**20:>10.0f}{error:>8.1%}", flush=True)
    print("* with --gradient-checkpointing")
    raise SystemExit(worst > BAR)


if __name__ == "__main__":
    main()
