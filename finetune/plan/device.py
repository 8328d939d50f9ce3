"""The memory available for training, determined without torch."""

from __future__ import annotations

import os
import shutil
import subprocess
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Literal

from finetune.machine import free_memory


@dataclass(frozen=True)
class Device:
    """The device that training would run on, and its free memory in bytes."""

    kind: Literal["cpu", "gpu"]
    free: int
    has_bfloat16: bool = True  # for a GPU: computes in bfloat16 without emulating it
    is_given: bool = False  # the user set `free`, with --memory or --gpu


def this_device(memory: int | None = None) -> Device:
    """The first GPU that the installed torch can use, else the memory of this machine.

    Args:
        memory: bytes that training may use, whatever is free.
    """
    free = _free_on_gpu()
    device = Device("cpu", free_memory()) if free is None else Device("gpu", free)
    return device if memory is None else replace(device, free=memory, is_given=True)


def _free_on_gpu() -> int | None:
    """Bytes free on the first visible NVIDIA GPU, from its driver; None without a GPU or a build of torch for it."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0].strip()
    command = shutil.which("nvidia-smi")
    with suppress(metadata.PackageNotFoundError):
        if "+cpu" in metadata.version("torch"):
            return None
    if command is None or visible in ("", "-1"):
        return None
    query = [command, "--query-gpu=memory.free", "--format=csv,noheader,nounits", "-i", visible]
    try:
        output = subprocess.run(query, capture_output=True, text=True, timeout=10, check=True).stdout
        return int(output.split()[0]) * 2**20
    except (OSError, subprocess.SubprocessError, ValueError, IndexError):
        return None
