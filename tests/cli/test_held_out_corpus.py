"""The corpus whose rows `merge` and `export` compare: never another than the one that was named, and never none in silence."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.cli.arguments import held_out_corpus
from finetune.cli.workspace import Workspace


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.named("finance", tmp_path)


def test_named_corpus_is_taken_whether_it_is_there_or_not(workspace: Workspace) -> None:
    workspace.corpus.mkdir(parents=True)
    assert held_out_corpus(Path("gone"), None, workspace) == Path("gone")


def test_workspace_supplies_the_corpus_of_its_own_adapter(
    workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    workspace.corpus.mkdir(parents=True)
    assert held_out_corpus(None, None, workspace) == workspace.corpus
    assert not caplog.text


@pytest.mark.parametrize(
    ("artifact", "reason"), [(None, "There is no corpus at {corpus}"), (Path("adapter"), "No --corpus is named")]
)
def test_bundled_rows_are_announced(
    artifact: Path | None, reason: str, workspace: Workspace, caplog: pytest.LogCaptureFixture
) -> None:
    assert held_out_corpus(None, artifact, workspace) is None
    announced = "the rows that are compared are general questions of slmtune, not held-out ones"
    assert f"{reason.format(corpus=workspace.corpus)}: {announced}" in caplog.text
