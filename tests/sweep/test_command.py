"""The command `slmtune sweep`: its table, its progress and what it says if Optuna is missing."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from finetune.cli.arguments import require_packages
from finetune.errors import InputError

from ..command import run


@pytest.mark.slow
def test_sweep_ends_with_a_table_and_the_next_command(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    arguments = ("--corpus", tiny_corpus, "--model", tiny_model, "--max-steps", 2, "--logging-steps", 1)
    done = run("sweep", *arguments, "--trials", 2, "--search", "lora-r=2,4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    head, *rows = done.stdout.splitlines()
    assert head.split() == ["trial", "state", "loss", "lora_r", "time"]
    assert {row.split()[0] for row in rows[:2]} == {"0", "1"}
    assert sum("(best)" in row for row in rows) == 1
    assert "--config runs/custom/sweep/best.yaml" in done.stdout
    assert "trial 1: 2/2" in done.stderr
    assert "trial 0 complete at " in done.stderr


def test_dry_run_shows_the_search(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    done = run("sweep", "--corpus", tiny_corpus, "--model", tiny_model, "--dry-run", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "learning rate" in done.stdout
    assert "0.0002 to 0.005, logarithmic" in done.stdout
    assert not list(tmp_path.iterdir())


def test_missing_package_is_reported_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(InputError, match=r"slmtune sweep needs optuna, .* pip install 'slmtune\[sweep\]'"):
        require_packages("slmtune sweep", "sweep", "optuna")
