"""Opens a corpus wherever it is: in a folder, or at an address, of which a verified copy is kept in the user's cache."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import Any

from finetune.artifacts import (
    MANIFEST,
    Corpus,
    make_folder,
    read_manifest,
    sha256_of,
    verify_manifest,
    write_aside,
)
from finetune.errors import ArtifactError, MissingStageError, OfflineError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder
from finetune.storage.address import folder_address, is_address
from finetune.storage.download import copy, download, leads_out

log = logging.getLogger(__name__)


def open_corpus(place: Path | str, *, command: str = Corpus.made_by) -> Corpus:
    """Open and verify the corpus in a folder or at an address.

    Of an address, the manifest is read each time, and what it names is downloaded once.

    Raises:
        MissingStageError: there is none; names `command`, which makes it.
        ArtifactError: it is damaged, incomplete or no corpus.
        OfflineError: it is not in the cache, and the network is forbidden or cannot be reached.
        InputError: the address cannot be read, or contains a password.
    """
    return (
        _open_copy(folder_address(place), command) if is_address(place) else Corpus.open(Path(place), command=command)
    )


def keep_copy(corpus: Corpus) -> Corpus:
    """Move a corpus that has been uploaded to the cache, where it is found instead of being downloaded."""
    with _cached(corpus.fingerprint) as folder:
        if folder.exists():  # others may be reading it
            shutil.rmtree(corpus.path)
        else:
            shutil.move(corpus.path, folder)
        return Corpus(folder, corpus.manifest)


def _open_copy(address: str, command: str) -> Corpus:
    file = download(f"{address}/{MANIFEST}", missing=MissingStageError(Corpus.kind, address, command))
    manifest = verify_manifest(read_manifest(file.parent), address, Corpus.kind, command)
    with _cached(manifest["fingerprint"]) as folder:
        with suppress(MissingStageError, ArtifactError):  # not there, or damaged since
            return Corpus.open(folder)
        if is_offline():
            raise OfflineError(
                f"{address} is not in the cache, and the network is forbidden (--offline). Run once without --offline"
            )
        log.info("Downloading the corpus at %s.", address)
        with write_aside(folder) as staging:
            _download(address, manifest, staging, command)
            shutil.copyfile(file, staging / MANIFEST)
        return Corpus.open(folder)


@contextmanager
def _cached(fingerprint: str) -> Iterator[Path]:
    """The folder in the cache of the corpus with a fingerprint, which no other process changes meanwhile."""
    corpora = cache_folder() / "corpora"
    make_folder(corpora)
    corpora.chmod(0o700)
    with (corpora / f"{fingerprint}.lock").open("w") as lock:
        with suppress(OSError):  # storage without locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield corpora / fingerprint


def _download(address: str, manifest: Mapping[str, Any], folder: Path, command: str) -> None:
    """Download the files that a manifest names, and compare their checksums."""

    def damaged(name: str, problem: str) -> ArtifactError:
        return ArtifactError(f"{address} is damaged: {name} {problem}. Make it again with: {command}")

    for name, expected in manifest["files"].items():
        if leads_out(PurePosixPath(name)):
            raise damaged(MANIFEST, "names a file outside the corpus")
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        copy(f"{address}/{name}", file, missing=damaged(name, "is missing"))
        if sha256_of(file) != expected:
            raise damaged(name, "has changed since it was written")
