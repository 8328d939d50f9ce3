"""Artifacts are opened by the kind in their manifest, and files and folders appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from finetune.artifacts import (
    Adapter,
    Corpus,
    EvalReport,
    Model,
    open_any,
    read_manifest,
    remove_leftovers,
    write_aside,
    writing,
)
from finetune.errors import ArtifactError


def test_an_artifact_is_opened_as_its_own_kind(tmp_path: Path) -> None:
    for kind in (Adapter, Model):
        with writing(tmp_path / kind.kind, kind, overwrite=False):
            pass
        assert type(open_any(tmp_path / kind.kind, (Adapter, Model))) is kind


def test_an_artifact_of_another_kind_is_named(tmp_path: Path) -> None:
    with writing(tmp_path / "eval", EvalReport, overwrite=False):
        pass
    with pytest.raises(ArtifactError, match=r"'eval report'. Give one of: adapter, corpus"):
        open_any(tmp_path / "eval", (Adapter, Corpus))


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"kind": "adapter", "files": []}', '{"kind": 1, "files": {}}'])
def test_an_unusable_manifest_is_damage(tmp_path: Path, text: str) -> None:
    (tmp_path / "manifest.json").write_text(text, "utf-8")
    assert read_manifest(tmp_path) == {}
    with pytest.raises(ArtifactError, match="damaged"):
        open_any(tmp_path, (Adapter,))
    with pytest.raises(ArtifactError, match="cannot be read"):
        Adapter.open(tmp_path)


def test_a_folder_without_a_manifest_is_not_an_artifact(tmp_path: Path) -> None:
    assert read_manifest(tmp_path) is None
    with pytest.raises(ArtifactError, match="not an artifact of slmtune"):
        open_any(tmp_path, (Adapter,))


@pytest.mark.parametrize("sync", [True, False])
def test_a_file_written_aside_replaces_the_old_one_at_once(tmp_path: Path, sync: bool) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", "utf-8")
    with write_aside(path, sync=sync) as staging:
        staging.write_text("new", "utf-8")
        assert path.read_text("utf-8") == "old"
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("a.txt", "new")]


def test_a_folder_written_aside_replaces_the_old_one_with_its_files(tmp_path: Path) -> None:
    path = tmp_path / "a"
    for name in ("old", "new"):
        with write_aside(path, sync=True) as staging:
            staging.mkdir()
            (staging / name).touch()
    assert [file.relative_to(tmp_path).as_posix() for file in sorted(tmp_path.rglob("*"))] == ["a", "a/new"]


def test_a_failure_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old", "utf-8")

    def fail() -> None:
        with write_aside(path) as staging:
            staging.write_text("half", "utf-8")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert [(file.name, file.read_text("utf-8")) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    with write_aside(tmp_path / "out") as staging:
        staging.mkdir()
        left = tmp_path / staging.name
        (left / "file").touch()
        remove_leftovers(tmp_path / "out")
        assert not left.exists()
        staging.mkdir()
