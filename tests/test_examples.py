"""The examples run unchanged, with the installed command."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

from .command import ROOT, SLMTUNE, fresh_environment


def run(script: str, *arguments: object, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = cwd / "slmtune"  # the console script, whatever environment the tests run in
    command.write_text(f'#!/bin/sh\nexec {shlex.join(SLMTUNE)} "$@"\n', "utf-8")
    command.chmod(0o755)
    environment = fresh_environment() | {"PATH": f"{cwd}:{os.environ['PATH']}"}
    words = ["bash", str(ROOT / "examples" / script), *map(str, arguments)]
    return subprocess.run(words, capture_output=True, text=True, cwd=cwd, env=environment, timeout=600, check=False)


def test_finance(tiny_model: Path, tmp_path: Path) -> None:
    any_length = ("--max-truncated", "100%")  # the tiny model's tokenizer makes several tokens of most words
    done = run("finance.sh", "--model", tiny_model, "--max-steps", 2, "--eval-steps", 0, *any_length, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"corpus", "adapter", "eval", "model"} == {path.name for path in (tmp_path / "runs/finance").iterdir()}


def test_own_data(tiny_model: Path, tmp_path: Path) -> None:
    rows = [f"message number {number} about {label},{label}" for number in range(40) for label in ("cards", "loans")]
    (tmp_path / "tickets.csv").write_text("\n".join(["text,label", *rows]) + "\n", "utf-8")
    done = run("own_data.sh", "tickets.csv", "Which team?", "--model", tiny_model, "--max-steps", 2, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert {"corpus", "adapter", "eval", "model"} == {path.name for path in (tmp_path / "runs/custom").iterdir()}
