"""Uploads a corpus to a folder of a bucket, so that it can be opened there when all of it is there, and not before.

While a corpus is uploaded, the object `.slmtune-uploading` lies in its folder, with its fingerprint; the manifest comes last.
What lies beside such an object is the remainder of an upload, which the next one of the same corpus continues.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune.artifacts import MANIFEST, Corpus, make_folder
from finetune.corpus.open import keep_copy
from finetune.errors import InputError, OfflineError, OutputExistsError, SlmtuneError, StorageError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder
from finetune.storage.address import WEB, folder_address
from finetune.storage.download import INSTALL

MARK = ".slmtune-uploading"

Progress = Callable[[int, int], None]  # bytes uploaded, of how many


def build_folder(address: str) -> Path:
    """Where the corpus for an address is built before it is uploaded."""
    return cache_folder() / "uploads" / hashlib.sha256(address.rstrip("/").encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Bucket:
    """A folder of a bucket."""

    address: str
    files: Any  # the file system, of fsspec
    root: str

    @classmethod
    def open(cls, address: str) -> Bucket:
        """The folder at an address, which need not exist.

        Raises:
            InputError: nothing can be written to such addresses, a library is missing, or the address contains a password.
            OfflineError: the network is forbidden.
        """
        address = folder_address(address)
        if is_offline():
            raise OfflineError(f"Nothing can be written to {address}, because the network is forbidden (--offline)")
        hint = "Give a folder, or an address at s3:// or gs://"
        try:
            if urlsplit(address).scheme not in WEB:
                import fsspec

                return cls(address, *fsspec.url_to_fs(address))
        except ImportError:
            hint = f"Install the missing libraries with: {INSTALL}"
        except ValueError:  # there is no such scheme
            pass
        raise InputError(f"A corpus cannot be written to {address}. {hint}")

    def require_free(self, *, overwrite: bool) -> None:
        """Refuse a folder that is not empty, unless it may be replaced and was made by slmtune, or is an unfinished upload.

        Raises:
            OutputExistsError: there is something, and `overwrite` is false.
            InputError: `overwrite` is set, but what is there is no corpus.
            StorageError: the bucket refused, or cannot be reached.
        """
        present = self._sizes()
        if not present or (MARK in present and MANIFEST not in present):
            return
        if not overwrite:
            raise OutputExistsError(self.address)
        if MANIFEST not in present:
            raise InputError(
                f"{self.address} was not made by slmtune, so --overwrite does not replace it. Remove it, or choose another "
                "--output-dir"
            )

    @contextmanager
    def reserved(self, *, overwrite: bool) -> Iterator[None]:
        """Make sure that the folder is free, and that objects can be written and removed, before the corpus is built.

        Raises:
            SlmtuneError: see `require_free`.
        """
        self.require_free(overwrite=overwrite)
        if not self._read_mark():  # else it is what an upload has left
            self._mark("")
            self._remove([MARK])
            self._mark("")
        built = build_folder(self.address)
        make_folder(built.parent)
        built.parent.chmod(0o700)
        try:
            yield
        except SlmtuneError:
            shutil.rmtree(built, ignore_errors=True)
            with suppress(StorageError):
                if self._read_mark() == "":  # the upload had not begun
                    self._remove([MARK])
            raise

    def upload(self, corpus: Corpus, on_progress: Progress, *, overwrite: bool) -> Corpus:
        """Upload a corpus, replacing what is there, or continue an upload of it; returns the copy that is kept in the cache.

        Raises:
            SlmtuneError: see `require_free`.
        """
        present = self._sizes()
        if MANIFEST in present or self._read_mark() != corpus.fingerprint:
            self.require_free(overwrite=overwrite)
            self._remove(sorted(present.keys() - {MARK}, key=lambda name: name != MANIFEST))
            self._mark(corpus.fingerprint)
            present = {}
        sizes = {
            file.relative_to(corpus.path).as_posix(): file.stat().st_size
            for file in sorted(corpus.path.rglob("*"))
            if file.is_file()
        }
        sizes[MANIFEST] = sizes.pop(MANIFEST)  # the last
        done, total = 0, sum(sizes.values())
        for name, size in sizes.items():
            if present.get(name) != size:
                with self._explained():
                    self.files.put_file(str(corpus.path / name), self._path(name))
            done += size
            on_progress(done, total)
        self._remove([MARK])
        return keep_copy(corpus)

    def _path(self, name: str) -> str:
        return f"{self.root.rstrip('/')}/{name}"

    def _sizes(self) -> dict[str, int]:
        """The size in bytes of each object in the folder."""
        self.files.invalidate_cache()
        with self._explained(), suppress(FileNotFoundError):
            found = self.files.find(self.root, detail=True)
            inside = {name.removeprefix(self._path("")): int(about["size"]) for name, about in found.items()}
            return {name: size for name, size in inside.items() if name and name != self.root.rstrip("/")}
        return {}

    def _read_mark(self) -> str | None:
        with self._explained(), suppress(FileNotFoundError):
            return str(self.files.cat_file(self._path(MARK)).decode("ascii", "replace"))
        return None

    def _mark(self, fingerprint: str) -> None:
        with self._explained():
            self.files.pipe_file(self._path(MARK), fingerprint.encode())

    def _remove(self, names: list[str]) -> None:
        with self._explained():
            for name in names:
                self.files.rm_file(self._path(name))

    @contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # each file system raises errors of its own
            raise StorageError(
                f"{self.address} cannot be written ({type(error).__name__}). Check that the bucket exists, the network, and "
                "your credentials and permission to list, write and remove objects there; then run the command again"
            ) from None
