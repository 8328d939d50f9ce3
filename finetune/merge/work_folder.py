"""The folder beside the output in which a merge is made: one process at a time, kept only if the process is killed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from finetune import __version__
from finetune.artifacts import library_versions, remove_leftovers, write_json
from finetune.errors import DiskFullError
from finetune.lock import LOCK, lock_folder
from finetune.machine import format_bytes

IDENTITY = "inputs.json"
SCRATCH = "scratch"  # the subfolder of what is made anew each time; the others are those of merged models


@contextmanager
def open_work_folder(out: Path, inputs: Mapping[str, object]) -> Iterator[Path]:
    """Lock the folder; files in subfolders that a killed merge of the same inputs has finished are there again.

    It is removed at the end, also after an error or a signal.

    Raises:
        OutputInUseError: another process is merging into the same folder.
    """
    out = Path(os.path.abspath(out))
    folder = out.parent / f".{out.name}.merge"
    with lock_folder(folder, out):
        remove_leftovers(out)
        try:
            _take_over(folder, {**inputs, "slmtune": __version__, **library_versions()})
            yield folder
        finally:
            _empty(folder)


def require_space(folder: Path, needed: int) -> None:
    """Refuse a merge for which the disk has no space, before any work.

    Raises:
        DiskFullError: says how much is needed and how much is free.
    """
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise DiskFullError(
            f"The merge needs {format_bytes(needed)} in {folder.parent}, where {format_bytes(free)} are free. Free some space "
            "or choose another --output-dir; --onto original or dequantized takes half of the space of both"
        )


def _take_over(folder: Path, identity: Mapping[str, object]) -> None:
    """Keep the finished shards of a killed merge if it had the same inputs; remove everything else."""
    known: object = None
    with suppress(OSError, ValueError):
        known = json.loads((folder / IDENTITY).read_text("utf-8"))
    if known != identity:
        _empty(folder)
        write_json(folder / IDENTITY, identity)
    shutil.rmtree(folder / SCRATCH, ignore_errors=True)
    for path in folder.glob("*/*"):
        if path.suffix != ".safetensors":
            path.unlink()


def _empty(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        elif path.name != LOCK:
            path.unlink(missing_ok=True)
