"""What can be made again, kept in the user's cache: folders found by a key, written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from finetune.artifacts import sampled_fingerprint, write_aside, write_json
from finetune.machine import cache_folder

MOST_BYTES = 8 * 2**30  # of each kind of folders, but for the one that is written
SPARE = 4  # times the size of a folder must be free on the disk
ABANDONED = 24 * 3600  # seconds after which nobody is still writing a folder
FACTS = "facts.json"


def kept_folder(kind: str, parts: object) -> Path:
    """Where to keep what is made from `parts`, as JSON: the key is their SHA-256, so they must determine it."""
    key = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]
    return cache_folder() / kind / key


def read_kept(folder: Path) -> Any:
    """The facts in a folder, whose files may then be read.

    Raises:
        OSError, ValueError, KeyError: there is none, or samples of its files are not those that were written.
    """
    facts = json.loads((folder / FACTS).read_text("utf-8"))
    if facts["samples"] != _sample(folder):
        raise ValueError(f"{folder} is damaged")
    os.utime(folder)  # used last
    return facts["found"]


def keep(folder: Path, origin: Path, size: int, write: Callable[[Path], Any]) -> None:
    """Let `write` fill a folder and return its facts, as JSON; if the disk has no room or fails, it is not kept.

    Args:
        origin: what it was made from; it goes when that has gone.
        size: bytes that it takes.
    """
    root = folder.parent
    with suppress(OSError):
        root.mkdir(parents=True, exist_ok=True)
        root.chmod(0o700)  # it is as private as its origin
        _tidy(root, folder)
        if SPARE * size > shutil.disk_usage(root).free:
            return
        with write_aside(folder) as staging:
            staging.mkdir()
            found = write(staging)
            facts = {"origin": str(origin.resolve()), "samples": _sample(staging), "found": found}
            write_json(staging / FACTS, facts)


def _sample(folder: Path) -> str:
    return sampled_fingerprint(sorted(file for file in folder.iterdir() if file.name != FACTS))


def _tidy(root: Path, folder: Path) -> None:
    """Remove folders whose origin is no longer there, the least recently used beyond the limit, and leftovers."""
    others = sorted((each for each in root.iterdir() if each != folder), key=lambda each: -each.stat().st_mtime)
    size = 0
    for each in others:
        size += sum(file.stat().st_size for file in each.iterdir())
        if size > MOST_BYTES or _is_useless(each):
            shutil.rmtree(each, ignore_errors=True)


def _is_useless(folder: Path) -> bool:
    try:
        return not Path(json.loads((folder / FACTS).read_text("utf-8"))["origin"]).is_dir()
    except (OSError, ValueError, KeyError):  # another process is writing it, or was killed
        return time.time() - folder.stat().st_mtime > ABANDONED
