"""A corpus at an address: downloaded once, verified, and found again without a network."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.artifacts import MANIFEST, Corpus, fingerprint_of
from finetune.corpus.open import open_corpus
from finetune.corpus.view import show_corpus
from finetune.errors import ArtifactError, InputError, MissingStageError, OfflineError
from finetune.machine import cache_folder
from finetune.records import Example

from ..conftest import chat
from ..corpora import write_corpus
from .conftest import ADDRESS, objects


def put(files: Any, folder: Path, rows: int = 3) -> Corpus:
    """Write a corpus of so many rows, and put it into the bucket."""
    examples = [Example(str(number), chat(f"What is {number}?", f"{number}."), "qa") for number in range(rows)]
    corpus = write_corpus(folder, {"train": examples}, overwrite=True)
    for file in folder.rglob("*"):
        if file.is_file():
            files.put_file(str(file), f"/shop/corpus/{file.relative_to(folder).as_posix()}")
    return corpus


def test_a_folder_and_an_address_are_opened_alike(bucket: Any, tmp_path: Path) -> None:
    corpus = put(bucket, tmp_path / "corpus")
    here, there = open_corpus(corpus.path), open_corpus(f"{ADDRESS}/")
    assert here.fingerprint == there.fingerprint == corpus.fingerprint
    assert [path.read_bytes() for path in there.files("train")] == [path.read_bytes() for path in here.files("train")]
    assert show_corpus(ADDRESS).rows == 3
    assert there.path.parent.stat().st_mode & 0o077 == 0


def test_the_files_are_downloaded_once_and_a_new_corpus_again(
    bucket: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(bucket, tmp_path / "corpus", rows=4)
    open_corpus(ADDRESS)
    for name in objects(bucket):
        if name != MANIFEST:
            bucket.rm_file(f"/shop/corpus/{name}")
    assert open_corpus(ADDRESS).counts["train"] == 4
    put(bucket, tmp_path / "corpus", rows=5)
    assert open_corpus(ADDRESS).counts["train"] == 5
    bucket.store.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert open_corpus(ADDRESS).counts["train"] == 5
    with pytest.raises(OfflineError, match=f"{ADDRESS}-2/manifest.json is not in the cache"):
        open_corpus(f"{ADDRESS}-2")


def test_a_copy_that_was_damaged_is_downloaded_again(bucket: Any, tmp_path: Path) -> None:
    put(bucket, tmp_path / "corpus", rows=6)
    (file,) = open_corpus(ADDRESS).files("train")
    file.write_bytes(b"")
    assert open_corpus(ADDRESS).files("train") == (file,)
    assert file.stat().st_size


def test_a_damaged_or_unfinished_corpus_is_refused_and_not_kept(bucket: Any, tmp_path: Path) -> None:
    corpus = put(bucket, tmp_path / "corpus", rows=7)
    data = "/shop/corpus/data/train-00000-of-00001.parquet"
    whole = bucket.cat_file(data)
    bucket.pipe_file(data, whole[:-1])
    with pytest.raises(ArtifactError, match=rf"^{ADDRESS} is damaged: data/train-\S* has changed .* slmtune prepare"):
        open_corpus(ADDRESS)
    bucket.rm_file(data)
    with pytest.raises(ArtifactError, match=rf"^{ADDRESS} is damaged: data/train-\S* is missing"):
        open_corpus(ADDRESS)
    assert not (cache_folder() / "corpora" / corpus.fingerprint).exists()
    bucket.rm_file(f"/shop/corpus/{MANIFEST}")
    with pytest.raises(MissingStageError, match=f"There is no corpus at {ADDRESS}. Make it with: slmtune prepare -x"):
        open_corpus(ADDRESS, command="slmtune prepare -x")


def test_a_manifest_cannot_write_outside_the_cache(bucket: Any, tmp_path: Path) -> None:
    put(bucket, tmp_path / "corpus")
    manifest = json.loads((tmp_path / "corpus" / MANIFEST).read_text("utf-8"))
    manifest["files"]["../../out"] = "0" * 64
    manifest["fingerprint"] = fingerprint_of(manifest)
    bucket.pipe_file(f"/shop/corpus/{MANIFEST}", json.dumps(manifest).encode())
    bucket.pipe_file("/out", b"")
    with pytest.raises(ArtifactError, match="names a file outside the corpus"):
        open_corpus(ADDRESS)


def test_an_address_with_a_secret_is_refused_without_repeating_it() -> None:
    for address in ("s3://AKIA7:wJalr/XUtn@shop/c", "s3://AKIA7:wJalrXUtn@shop/c", "https://shop/c?sig=wJalr"):
        with pytest.raises(InputError, match="must not have a user, a password or a query") as caught:
            open_corpus(address)
        assert not any(part in str(caught.value) for part in ("AKIA7", "wJalr", "XUtn"))
