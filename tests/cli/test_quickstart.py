"""The quickstart: one call makes all four artifacts."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.cli.console import Progress
from finetune.cli.quickstart import quickstart
from finetune.cli.render.results import render_quickstart
from finetune.cli.workspace import Workspace


@pytest.mark.slow
def test_quickstart_makes_every_artifact_and_reports_the_figures(tiny_model: Path, tmp_path: Path) -> None:
    stages: list[str] = []
    workspace = Workspace.named("quickstart", tmp_path)
    overrides = {"model": str(tiny_model), "max_steps": 1, "max_truncated": 1.0}
    result = quickstart(workspace, overrides, Progress(lambda *_: None, stages.append))
    assert [stage.partition(":")[0] for stage in stages] == ["prepare", "train", "eval", "merge"]
    assert {path.name for path in workspace.root.iterdir()} == {"corpus", "adapter", "eval", "model"}
    assert "merged model" in render_quickstart(result, workspace)
