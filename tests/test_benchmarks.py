"""The benchmark for GPUs runs to its end on a CPU, so that it does on the machine that it is for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from .command import PATIENCE, ROOT, fresh_environment


@pytest.mark.slow
def test_gpu_benchmark_measures_the_same_training_twice(tmp_path: Path) -> None:
    script, table, figures = ROOT / "benchmarks" / "gpu_qlora.py", tmp_path / "table.md", tmp_path / "figures.json"
    command = [sys.executable, str(script), "--smoke", "--table", str(table), "--json", str(figures)]
    done = subprocess.run(
        command, cwd=tmp_path, env=fresh_environment(), capture_output=True, text=True, timeout=PATIENCE, check=False
    )
    assert done.returncode == 0, done.stderr
    assert table.read_text("utf-8") == done.stdout
    ours, theirs = json.loads(figures.read_text("utf-8"))["points"]
    assert (ours["trainer"], theirs["trainer"]) == ("slmtune", "sft")
    assert ours["loss"] == pytest.approx(theirs["loss"], rel=1e-3)  # the same rows, labels and base model
    assert min(point[name] for point in (ours, theirs) for name in ("rate", "mfu", "peak")) > 0
