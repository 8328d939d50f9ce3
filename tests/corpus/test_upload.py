"""prepare --out s3://…: the corpus is in the bucket as a whole or cannot be opened, and an upload continues."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import MANIFEST, Corpus
from finetune.corpus.open import open_corpus
from finetune.corpus.upload import MARK, Bucket
from finetune.errors import (
    ConfigError,
    InputError,
    MissingStageError,
    OfflineError,
    OutputExistsError,
    RecordError,
    StorageError,
)
from finetune.machine import cache_folder
from finetune.prepare import PrepareRequest, PrepareResult, prepare

from .conftest import ADDRESS, objects


@pytest.fixture
def upload(tmp_path: Path) -> Callable[..., PrepareResult]:
    """`upload(rows, option=value)` prepares so many rows for the bucket."""

    def run(rows: int = 20, address: Path | str = ADDRESS, **options: Any) -> PrepareResult:
        file = tmp_path / "rows.jsonl"
        if not file.exists() or len(file.read_text("utf-8").splitlines()) != rows:
            lines = (json.dumps({"question": f"What is {n}?", "answer": f"It is {n}."}) for n in range(rows))
            file.write_text("".join(f"{line}\n" for line in lines), "utf-8")
        return prepare(PrepareRequest(address, sources=(str(file),), **options))

    return run


Upload = Callable[..., PrepareResult]


def failing(files: Any, monkeypatch: pytest.MonkeyPatch, name: str, error: BaseException) -> list[str]:
    """Let the upload of an object fail; returns the list that gets the names of all that are uploaded."""
    put, sent = files.put_file, list[str]()

    def put_file(source: str, target: str) -> None:
        if target.endswith(name):
            raise error
        sent.append(target.removeprefix("/shop/corpus/"))
        put(source, target)

    monkeypatch.setattr(files, "put_file", put_file)
    return sent


def left_here() -> list[str]:
    """What is left of uploads on this machine."""
    return [path.name for path in (cache_folder() / "uploads").iterdir()]


def test_the_bucket_has_the_files_of_the_corpus(bucket: Any, upload: Upload, tmp_path: Path) -> None:
    made = upload()
    local = upload(address=tmp_path / "corpus")
    assert made.fingerprint == local.fingerprint
    assert made.address == ADDRESS
    names = sorted(path.relative_to(local.corpus).as_posix() for path in local.corpus.rglob("*") if path.is_file())
    assert objects(bucket) == names
    for name in names:
        if name != MANIFEST:  # which has the time
            assert bucket.cat_file(f"/shop/corpus/{name}") == (local.corpus / name).read_bytes()
    assert b"memory:" not in bucket.cat_file(f"/shop/corpus/{MANIFEST}")
    assert left_here() == []
    assert open_corpus(ADDRESS) == Corpus.open(made.corpus)


def test_the_manifest_comes_last(bucket: Any, upload: Upload, monkeypatch: pytest.MonkeyPatch) -> None:
    sent = failing(bucket, monkeypatch, "no such name", PermissionError())
    upload()
    assert sent[-1] == MANIFEST
    assert len(sent) == len(objects(bucket))


@pytest.mark.parametrize("error", [PermissionError(), KeyboardInterrupt()])
def test_an_upload_that_ends_early_cannot_be_opened_and_continues(
    bucket: Any, upload: Upload, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    with monkeypatch.context() as patch:
        before = failing(bucket, patch, "manifest.json", error)
        with pytest.raises(StorageError if isinstance(error, Exception) else KeyboardInterrupt):
            upload()
    assert MARK in objects(bucket)
    with pytest.raises(MissingStageError):
        open_corpus(ADDRESS)
    assert any(name.endswith(".work") for name in left_here())
    after = failing(bucket, monkeypatch, "no such name", error)
    made = upload()
    assert before
    assert after == [MANIFEST]
    assert open_corpus(ADDRESS).fingerprint == made.fingerprint
    assert left_here() == []


def test_another_corpus_does_not_continue_an_upload(
    bucket: Any, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(bucket, patch, "manifest.json", PermissionError())
        with pytest.raises(StorageError):
            upload(20)
    assert sum(upload(21).splits.values()) == 21
    assert sum(open_corpus(ADDRESS).counts.values()) == 21


def test_a_download_of_the_same_source_continues_the_work(
    bucket: Any, upload: Upload, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Downloading a source again changes the time of its file, but not what it says."""
    bucket.pipe_file("/shop/rows.jsonl", b'{"question": "What is one?", "answer": "It is 1."}\n')
    request = PrepareRequest(ADDRESS, sources=("memory://shop/rows.jsonl",))
    with monkeypatch.context() as patch:
        failing(bucket, patch, "manifest.json", PermissionError())
        with pytest.raises(StorageError):
            prepare(request)
    (work,) = (cache_folder() / "uploads").glob("*.work")
    (shard,) = work.glob("rows-*.arrow")
    written = shard.stat().st_mtime_ns
    seen: list[int] = []
    prepare(request, lambda stage, *_: seen.append(shard.stat().st_mtime_ns) if stage == "upload" else None)
    assert set(seen) == {written}


def test_rows_of_a_corpus_in_a_bucket_are_not_used_again(bucket: Any, upload: Upload, tmp_path: Path) -> None:
    upload(20)
    made = upload(25, address=tmp_path / "new", against=(ADDRESS,))
    assert sum(made.splits.values()) == 5
    manifest = Corpus.open(made.corpus).manifest
    assert manifest["config"]["against"] == [ADDRESS]


def test_what_is_there_is_only_replaced_if_asked_and_if_it_is_a_corpus(bucket: Any, upload: Upload) -> None:
    upload(20)
    bucket.pipe_file("/shop/corpus/data/train-00001-of-00002.parquet", b"left from another version")
    with pytest.raises(OutputExistsError, match=f"{ADDRESS} already exists"):
        upload(21)
    assert sum(upload(21, overwrite=True).splits.values()) == 21
    assert sum(open_corpus(ADDRESS).counts.values()) == 21
    assert "data/train-00001-of-00002.parquet" not in objects(bucket)
    bucket.pipe_file("/shop/other/notes.txt", b"mine")
    for overwrite, error in ((False, OutputExistsError), (True, InputError)):
        with pytest.raises(error):
            upload(address="memory://shop/other", overwrite=overwrite)
    assert objects(bucket, "/shop/other") == ["notes.txt"]


@pytest.mark.parametrize("denied", ["pipe_file", "rm_file"])
def test_a_bucket_that_cannot_be_written_is_noticed_before_anything_is_read(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, denied: str
) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError("AKIAEXAMPLE")

    monkeypatch.setattr(bucket, denied, refuse)
    (tmp_path / "rows.jsonl").write_text('{"question": "Why?", "answer": "So."}\n', "utf-8")
    stages: list[str] = []
    with pytest.raises(StorageError, match=rf"{ADDRESS} cannot be written \(PermissionError\)") as caught:
        prepare(
            PrepareRequest(ADDRESS, sources=(str(tmp_path / "rows.jsonl"),)), lambda stage, *_: stages.append(stage)
        )
    assert "AKIA" not in str(caught.value)
    assert stages == left_here() == []


def test_a_preparation_that_fails_leaves_nothing(bucket: Any, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"text": "Fine."}\n{"text": \n', "utf-8")
    with pytest.raises(RecordError):
        prepare(PrepareRequest(ADDRESS, sources=(str(tmp_path / "rows.jsonl"),)))
    assert objects(bucket) == left_here() == []


def test_the_key_of_canaries_stays_here(bucket: Any, upload: Upload, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="--canaries need --canary-key FILE"):
        upload(canaries=6)
    made = upload(canaries=6, canary_key=tmp_path / "my.key")
    assert made.canary_key == tmp_path / "my.key"
    assert made.canary_key.is_file()
    assert not any("key" in name for name in objects(bucket))


def test_places_that_cannot_be_written_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for address in ("https://example.com/corpus", "nothing://bucket/corpus"):
        with pytest.raises(InputError, match=rf"cannot be written to {address}. Give a folder, or an address at s3"):
            Bucket.open(address)
    with pytest.raises(InputError, match="must not have a user") as caught:
        Bucket.open("s3://KEY:SECRET@bucket/corpus")
    assert "SECRET" not in str(caught.value)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(OfflineError, match="the network is forbidden"):
        Bucket.open(ADDRESS)
