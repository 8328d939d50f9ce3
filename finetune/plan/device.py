"""How much memory there is to train in, found without torch."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from finetune.errors import InputError

UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
CGROUP = Path("/sys/fs/cgroup")


@dataclass(frozen=True)
class Device:
    """Where training would run, and the bytes that are free there."""

    kind: Literal["cpu", "gpu"]
    free: int


def this_device() -> Device:
    """The first GPU that the installed torch can use, else the memory of this machine."""
    free = _free_on_gpu()
    return Device("cpu", free_memory()) if free is None else Device("gpu", free)


def free_memory() -> int:
    """Bytes that a new process can have, within the limit of a container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    with suppress(OSError, ValueError):  # "max" is no number: no limit
        limit = int((CGROUP / "memory.max").read_text())
        free = min(free, max(0, limit - int((CGROUP / "memory.current").read_text())))
    return free


def read_size(text: str) -> int:
    """Bytes of a size such as 8GiB, 500 MB or 12g; the units are powers of 1,024.

    Raises:
        InputError: it is none.
    """
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if found is None or float(found[1]) == 0:
        raise InputError(f"{text!r} is no size of memory. Write it as 8GiB or 500MiB")
    return int(float(found[1]) * UNITS[found[2].upper()])


def _free_on_gpu() -> int | None:
    """Bytes free on the first visible NVIDIA GPU, as its driver says; None without one, or without a torch for it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    command = shutil.which("nvidia-smi")
    with suppress(metadata.PackageNotFoundError):
        if "+cpu" in metadata.version("torch"):
            return None
    if command is None or visible in ("", "-1"):
        return None
    query = [command, "--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", visible]
    try:
        shown = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        return int(shown.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
