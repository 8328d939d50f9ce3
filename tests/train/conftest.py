"""Fixtures of training: an undisturbed run to compare others with, and a killed one."""

from __future__ import annotations

import importlib
import shutil
from pathlib import Path

import pytest

from ..command import Command
from .kills import Undisturbed, checkpoints, newest, outcome, training


@pytest.fixture(scope="session")
def undisturbed(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    arguments = training(tiny_model, tiny_corpus)
    run = Command(*arguments, cwd=folder)
    assert run.wait() == 0, run.stderr
    assert sorted(path.name for path in folder.iterdir()) == ["adapter"]
    return Undisturbed(arguments, outcome(folder), run.result["seconds"])


@pytest.fixture(scope="session")
def stopped(undisturbed: Undisturbed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a run that was killed after two checkpoints."""
    folder = tmp_path_factory.mktemp("stopped")
    run = Command(*undisturbed.arguments, cwd=folder)
    assert run.until(lambda: len(checkpoints(folder)) == 2 and newest(folder) >= 8), run.stderr
    run.kill()
    for replaced in checkpoints(folder)[:-2]:  # the kill came after a third was written, before the first was removed
        shutil.rmtree(replaced)
    return folder


@pytest.fixture
def killed(stopped: Path, tmp_path: Path) -> Path:
    """A copy of the stopped run; a test may damage it."""
    return shutil.copytree(stopped, tmp_path / "run")


@pytest.fixture
def no_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make loading weights fail."""
    monkeypatch.setattr(importlib.import_module("finetune.train.run"), "load_base", None)
