"""The artifacts on disk: a folder with a `manifest.json`, written whole or not at all, verified when opened.

An artifact is built in a sibling folder, its files are fsynced, the manifest is written last and the folder is renamed
into place, so a folder with a valid manifest is complete. The manifest contains no host name, user name or absolute path.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Self

from finetune import __version__
from finetune.errors import ArtifactError, InputError, MissingStageError, OutputExistsError
from finetune.records import SPLITS, Split

MANIFEST = "manifest.json"
SCHEMA_VERSION = 1
LIBRARIES = (
    "torch",
    "transformers",
    "peft",
    "trl",
    "datasets",
    "bitsandbytes",
    "accelerate",
    "safetensors",
    "tokenizers",
)
SAMPLED_BLOCKS, BLOCK = 64, 65_536  # blocks per file in `sampled_fingerprint`, and their size in bytes
UNHASHED = {MANIFEST, "README.md"}  # a card may be edited by hand; all other files have a checksum


@dataclass(frozen=True)
class Artifact:
    """A verified folder and its manifest. `open` is the only way to get one."""

    kind: ClassVar[str] = ""
    made_by: ClassVar[str] = ""

    path: Path
    manifest: Mapping[str, Any]

    @classmethod
    def open(cls, path: Path, *, command: str | None = None) -> Self:
        """Read and verify the artifact at `path`.

        Raises:
            MissingStageError: `path` does not exist; names `command`, which makes it.
            ArtifactError: the artifact is of another kind, or a file is missing or changed; names the file.
        """
        path = Path(path)
        if not path.is_dir() or not any(path.iterdir()):
            raise MissingStageError(cls.kind, path, command or cls.made_by)
        manifest = verify_manifest(read_manifest(path), path, cls.kind, command or cls.made_by)
        for name, expected in manifest["files"].items():
            file = path / name
            if not file.is_file():
                raise ArtifactError(
                    f"{path} is damaged: {name} is missing. Make it again with: {command or cls.made_by}"
                )
            if sha256_of(file) != expected:
                raise ArtifactError(
                    f"{path} is damaged: {name} has changed since it was written. Make it again with: {command or cls.made_by}"
                )
        return cls(path, manifest)

    @property
    def fingerprint(self) -> str:
        """SHA-256 over kind, configuration, parents and file checksums: the identity that lineage refers to."""
        return fingerprint_of(self.manifest)

    @property
    def config(self) -> Mapping[str, Any]:
        """The complete configuration that the artifact was made with."""
        config: Mapping[str, Any] = self.manifest["config"]
        return config


class Corpus(Artifact):
    """Rows to train and evaluate on, as a Hub data set repository."""

    kind = "corpus"
    made_by = "slmtune prepare --domain DOMAIN"

    def files(self, split: Split) -> tuple[Path, ...]:
        """The Parquet files of a split, in order; none if the split is empty."""
        return tuple(sorted((self.path / "data").glob(f"{split}-*.parquet")))

    @property
    def counts(self) -> dict[str, int]:
        """Rows per split."""
        return {split: int(self.manifest["counts"].get(split, 0)) for split in SPLITS}


class Adapter(Artifact):
    """A PEFT adapter, loadable without slmtune."""

    kind = "adapter"
    made_by = "slmtune train --domain DOMAIN"


class Model(Artifact):
    """A plain transformers folder."""

    kind = "model"
    made_by = "slmtune merge --domain DOMAIN"


class Export(Artifact):
    """Files of an adapter or model for another runtime."""

    kind = "export"
    made_by = "slmtune export --domain DOMAIN --format FORMAT"


class Sweep(Artifact):
    """The trials of a sweep, and the best recipe."""

    kind = "sweep"
    made_by = "slmtune sweep --domain DOMAIN"


class EvalReport(Artifact):
    """Scores of base and adapter, with samples."""

    kind = "eval report"
    made_by = "slmtune eval --domain DOMAIN"


class AuditReport(Artifact):
    """What an adapter tells about the rows that it was trained on."""

    kind = "audit report"
    made_by = "slmtune audit --domain DOMAIN"


def open_any(path: Path, kinds: Sequence[type[Artifact]]) -> Artifact:
    """Open and verify an artifact of any of `kinds`.

    Raises:
        ArtifactError: it is damaged, of another kind or not an artifact.
    """
    manifest = read_manifest(path)
    expected = f"Give one of: {', '.join(kind.kind for kind in kinds)}"
    if manifest is None:
        raise ArtifactError(f"{path} is not an artifact of slmtune: it has no {MANIFEST}. {expected}")
    if not manifest:
        raise ArtifactError(f"{path} is damaged: {MANIFEST} cannot be read")
    for kind in kinds:
        if kind.kind == manifest["kind"]:
            return kind.open(path)
    raise ArtifactError(f"{path} is an artifact of kind {manifest['kind']!r}. {expected}")


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest in a folder, unverified: None if there is none, empty if it cannot be read."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text("utf-8"))
    except OSError:
        return None
    except ValueError:
        return {}
    named = isinstance(manifest, dict) and isinstance(manifest.get("kind"), str)
    return manifest if named and isinstance(manifest.get("files"), dict) else {}


@contextmanager
def writing(out: Path, kind: type[Artifact], *, overwrite: bool) -> Iterator[ArtifactWriter]:
    """Build an artifact in a sibling folder and rename it to `out` if the block ends without an error.

    Raises:
        OutputExistsError: `out` is not empty and `overwrite` is false.
        InputError: the parent folder cannot be written.
    """
    out = Path(os.path.abspath(out))
    ensure_replaceable(out, overwrite=overwrite)
    with write_aside(out, sync=True) as staging:
        make_folder(staging)
        writer = ArtifactWriter(staging, kind)
        yield writer
        writer.finish()


@contextmanager
def write_aside(path: Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path next to `path` and rename it to `path` if the block ends without an error.

    What is at `path` stays there until then, and whatever a failed block wrote is removed. `sync` makes the renaming
    survive a power failure; flushing the files of a folder is up to the caller.
    """
    staging = path.parent / f".{path.name}.{uuid.uuid4().hex[:8]}.tmp"
    try:
        yield staging
        if sync:
            fsync(staging)
        old = staging.with_suffix(".old")
        if path.is_dir():  # a rename cannot replace a folder with files
            os.replace(path, old)
        os.replace(staging, path)
        if sync:
            fsync(path.parent)
        shutil.rmtree(old, ignore_errors=True)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
        with suppress(OSError):  # renamed, removed, or never there
            staging.unlink()


class ArtifactWriter:
    """Collects the contents of the manifest; the caller writes the files themselves to `folder`."""

    def __init__(self, folder: Path, kind: type[Artifact]) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = {
            "kind": kind.kind,
            "schema_version": SCHEMA_VERSION,
            "slmtune_version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "config": {},
            "parents": {},
            "libraries": library_versions(),
        }

    def finish(self) -> None:
        """Hash and fsync every file, then write the manifest."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        self.manifest["files"] = {
            path.relative_to(self.folder).as_posix(): sha256_of(path) for path in files if path.name not in UNHASHED
        }
        self.manifest["fingerprint"] = fingerprint_of(self.manifest)
        for path in files:
            fsync(path)
        write_json(self.folder / MANIFEST, self.manifest)
        fsync(self.folder / MANIFEST)
        fsync(self.folder)


def ensure_replaceable(out: Path, *, overwrite: bool) -> None:
    """Refuse an output that exists, unless it may be replaced and was made by slmtune.

    Raises:
        OutputExistsError: `out` is not empty and `overwrite` is false.
        InputError: `overwrite` is set, but `out` is not an artifact: it might be the user's own folder.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    if not overwrite:
        raise OutputExistsError(out)
    if not (out / MANIFEST).is_file():
        raise InputError(
            f"{out} was not made by slmtune, so --overwrite does not replace it. Remove it, or choose another --output-dir"
        )


def make_folder(path: Path) -> None:
    """Create a folder and its parents.

    Raises:
        InputError: it cannot be created; names the folder and the reason.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        where = path.parent if path.name.startswith(".") else path
        raise InputError(
            f"Cannot write to {where}: {error.strerror or error}. Choose a writable --output-dir"
        ) from None


def remove_leftovers(out: Path) -> None:
    """Remove the folders that killed processes left next to `out`; no other process may be writing there."""
    endings = (
        ["tmp", "old"] if out.exists() else ["tmp"]
    )  # after a kill during a replacement, the .old folder may be the only copy
    for ending in endings:
        for folder in out.parent.glob(f".{glob.escape(out.name)}.{'[0-9a-f]' * 8}.{ending}"):
            shutil.rmtree(folder, ignore_errors=True)


def fingerprint_of(manifest: Mapping[str, Any]) -> str:
    """SHA-256 over the parts of a manifest that do not depend on when or by which version it was written."""
    parts = {key: manifest.get(key) for key in ("kind", "config", "parents", "files")}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def verify_manifest(manifest: dict[str, Any] | None, place: Path | str, kind: str, command: str) -> dict[str, Any]:
    """Make sure that the manifest read at a place is that of a complete artifact of a kind.

    Raises:
        ArtifactError: it is not; names `command`, which makes the artifact.
    """
    if manifest is None:
        raise ArtifactError(f"{place} is not a complete {kind}: it has no {MANIFEST}. Make it with: {command}")
    if not manifest:
        raise ArtifactError(f"{place}/{MANIFEST} cannot be read. Make the {kind} again with: {command}")
    if manifest["kind"] != kind:
        raise ArtifactError(f"{place} holds a {manifest['kind']}, not a {kind}")
    if (version := manifest.get("schema_version")) != SCHEMA_VERSION:
        raise ArtifactError(
            f"{place}/{MANIFEST} has schema version {version}; this version of slmtune reads {SCHEMA_VERSION}"
        )
    if manifest.get("fingerprint") != fingerprint_of(manifest):
        raise ArtifactError(
            f"{place} is damaged: {MANIFEST} was edited after it was written. Make it again with: {command}"
        )
    return manifest


def library_versions(libraries: Iterable[str] = LIBRARIES) -> dict[str, str]:
    """Installed versions of the libraries that affect results, read from metadata without importing them."""
    return {name: version for name in libraries if (version := _installed(name)) is not None}


@cache
def _installed(library: str) -> str | None:
    try:
        return metadata.version(library)
    except metadata.PackageNotFoundError:
        return None


def write_json(path: Path, data: object) -> None:
    """Write indented UTF-8 JSON with a final newline."""
    path.write_text(json.dumps(data, indent=2, ensure_ascii=False) + "\n", "utf-8")


def write_jsonl(path: Path, records: Iterable[Mapping[str, Any]]) -> None:
    """Write JSON Lines: one UTF-8 object per line."""
    encode = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps would build one for each record
    with path.open("w", encoding="utf-8") as file:
        file.writelines(f"{encode(record)}\n" for record in records)


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sampled_fingerprint(files: Iterable[Path]) -> str:
    """SHA-256 over the size, the header and 64 evenly spaced blocks of every file of weights, hexadecimal.

    Two trainings of one architecture differ in every block, so samples are enough to distinguish them without reading
    gigabytes.
    """
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        with path.open("rb") as file:
            for number in range(SAMPLED_BLOCKS):
                file.seek(number * max(size - BLOCK, 0) // (SAMPLED_BLOCKS - 1))
                digest.update(file.read(BLOCK))
    return digest.hexdigest()


def fsync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
