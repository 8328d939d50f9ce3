"""The memory, disk space and device of this machine, and byte counts in the form that people write."""

from __future__ import annotations

import ctypes
import errno
import gc
import os
import platform
import re
import resource
import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import platformdirs

from finetune.errors import DiskFullError, InputError

CGROUPS, OWN_CGROUPS = Path("/sys/fs/cgroup"), Path("/proc/self/cgroup")
# Files of a cgroup: limit and use in bytes, and the keys of memory.stat for what the kernel frees on demand, in version 2
# and 1 (Linux, admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst).
CGROUP_V2 = ("memory.max", "memory.current", ("inactive_file", "active_file", "slab_reclaimable"))
CGROUP_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", ("total_inactive_file", "total_active_file"))
# How libraries say that an allocation has failed: torch on a CPU, then CUDA (bitsandbytes passes its message on) and cuBLAS.
FULL_MEMORY = ("can't allocate memory", "not enough memory", "out of memory", "cublas_status_alloc_failed")
GPU_CONTEXT = 600 * 2**20  # a CUDA context with torch's kernels and cuBLAS's workspace, which torch does not count
# mallopt(3): up to which size freed memory is kept, and how much of it at the end. The largest size that glibc accepts, and
# one at which reading SmolLM2-135M or a model of 0.5 B takes as long as without a limit; at 1 MiB it takes a sixth longer.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, LARGEST_KEPT, LARGEST_KEPT_LOADING = -1, -3, 32 * 2**20, 4 * 2**20
SOFT_PAUSE = 1  # omp_pause_soft (OpenMP 5.0, section 3.2.44)
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def free_memory() -> int:
    """Bytes of main memory available to a new process, within the limits of the containers that this one runs in."""
    import psutil  # here: `slmtune --help` imports this module

    return min([int(psutil.virtual_memory().available), *(max(0, limit - used) for limit, used in _container_limits())])


def total_memory() -> int:
    """Bytes of main memory in total: the machine's, or the limit of a container that this process runs in."""
    import psutil  # here: `slmtune --help` imports this module

    return min([int(psutil.virtual_memory().total), *(limit for limit, _ in _container_limits())])


def _container_limits() -> Iterator[tuple[int, int]]:
    """Limit and use in bytes of each cgroup around this process that has a limit."""
    trees = (("", CGROUPS, CGROUP_V2), ("memory", CGROUPS / "memory", CGROUP_V1))
    for controller, root, files in trees:
        for folder in _own_cgroups(controller, root):
            if (limit_and_use := _limit_and_use(folder, files)) is not None:
                yield limit_and_use


def _own_cgroups(controller: str, root: Path) -> Iterator[Path]:
    """The folder of this process's cgroup and its parents: each may have a limit.

    Inside a container, the path may be the host's and not exist here; the root is then the container's own.
    """
    with suppress(OSError):
        for line in OWN_CGROUPS.read_text("utf-8").splitlines():
            _, controllers, path = line.split(":", 2)  # number:controllers:path; no controllers in version 2
            if controller in controllers.split(","):
                folder = root / path.lstrip("/")
                yield from (folder, *(parent for parent in folder.parents if parent.is_relative_to(root)))


def _limit_and_use(folder: Path, files: tuple[str, str, tuple[str, ...]]) -> tuple[int, int] | None:
    """A cgroup's limit and use in bytes, without the kernel's caches; None without a limit.

    The kernel's figure includes the page cache, which a large download or data set fills up to the limit, and the caches of
    file names. They are freed on demand (admin-guide/cgroup-v2.rst, memory.stat).
    """
    limit, current, cached = files
    with suppress(OSError, ValueError):  # the root has no limit, and "max" is not a number
        allowed, used = int((folder / limit).read_text()), int((folder / current).read_text())
        with suppress(OSError, ValueError):
            stat = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
            used -= sum(int(stat.get(key, 0)) for key in cached)
        return allowed, max(0, used)
    return None


@contextmanager
def explain_full_disk(folder: Path, next_step: str) -> Iterator[None]:
    """Report a full disk in one sentence, whichever library runs into it.

    Args:
        folder: a folder on that disk; the message names it and its free space.
        next_step: how the message ends, such as "then try again".

    Raises:
        DiskFullError: a write failed for lack of space.
    """
    try:
        yield
    except Exception as error:  # torch and safetensors raise their own errors, with the reason as text
        if not _is_full(error):
            raise
        raise DiskFullError(
            f"Writing failed for lack of space: {format_bytes(shutil.disk_usage(folder).free)} are free in {folder}. Free some "
            f"space or raise the limit on file sizes (ulimit -f), {next_step}"
        ) from error


def _is_full(error: Exception) -> bool:
    if isinstance(error, OSError) and error.errno in FULL:
        return True
    text = str(error).lower()
    return any(reason in text for reason in ("no space left", "file too large", "quota exceeded", "unexpected pos"))


def device_name() -> str:
    """Where models run: the first GPU, else the CPU."""
    import torch

    return "cuda:0" if torch.cuda.is_available() else "cpu"


def count_cores() -> int:
    """The CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_cpu() -> str:
    """The model of the processor, and how many threads compute on it."""
    import torch

    model = platform.processor() or platform.machine()
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
        model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), model)
    return f"{model}, {torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}"


def has_bfloat16() -> bool:
    """Whether there is a GPU that computes in bfloat16 without emulating it."""
    import torch

    return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)


def peak_bytes() -> int:
    """Peak memory so far, in bytes: on the GPU with its context, if there is one; else the resident memory of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_reserved()) + GPU_CONTEXT
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux: man 2 getrusage


def process_seconds() -> float:
    """Seconds since this process started."""
    import psutil  # here: `slmtune --help` imports this module

    return time.time() - float(psutil.Process().create_time())


def release_memory() -> None:
    """Return freed memory to the operating system if the C library can: loading leaves hundreds of megabytes."""
    gc.collect()
    return_gaps()


def return_gaps() -> None:
    """Return the freed memory between what is in use to the operating system if the C library can, within milliseconds."""
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc; musl has none
        if trim is not None:
            trim(0)


def return_freed_memory() -> None:
    """Let the C library return larger blocks when they are freed, if it can, until `keep_freed_memory`.

    What quantising a layer needs, beside its weights, would otherwise stay: the packed weights lie in between.
    """
    _set_allocator(M_MMAP_THRESHOLD, LARGEST_KEPT_LOADING)


def keep_freed_memory() -> None:
    """Let the C library keep freed memory for later allocations, if it can, instead of returning and fetching it each time.

    A training step frees what the one before it allocated; each page that comes back from the system is zeroed first.
    """
    _set_allocator(M_MMAP_THRESHOLD, LARGEST_KEPT)
    _set_allocator(M_TRIM_THRESHOLD, 2**31 - 1)


def _set_allocator(option: int, value: int) -> None:
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc; musl has none
        if mallopt is not None:
            mallopt(option, value)


def end_idle_threads() -> None:
    """Let OpenMP end the threads that it keeps for this one to compute with; they start again when this one computes again.

    GNU's OpenMP keeps a team for each thread that has computed. Where all teams together have more threads than there are
    cores, those that wait fall asleep at once (GOMP_SPINCOUNT in its manual), and waking them takes longer than a small
    product: while another thread had a team, 16 rows of SmolLM2-135M with 8 adapters took 103 to 121 ms instead of 86 to 92.
    """
    import torch  # here: `slmtune --help` imports this module

    for library in (Path(torch.__file__).parent / "lib").glob("libgomp*"):
        with suppress(OSError, AttributeError):  # of another system, or older than OpenMP 5.0
            ctypes.CDLL(str(library)).omp_pause_resource_all(SOFT_PAUSE)


def cache_folder() -> Path:
    """The folder in the user's cache that slmtune keeps between runs."""
    return platformdirs.user_cache_path("slmtune")


def state_folder() -> Path:
    """The folder for what slmtune remembers of its use, and keeps only if asked to."""
    return platformdirs.user_state_path("slmtune")


def format_bytes(count: float) -> str:
    """Bytes in the largest unit that leaves a non-zero digit before the point, such as 1.9 GiB."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def read_size(text: str) -> int:
    """Parse a size such as 8GiB, 500 MB or 12g into bytes; the units are powers of 1,024.

    Raises:
        InputError: `text` is not a size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(?:i?B)?\s*", text, re.IGNORECASE)
    if match is None or float(match[1]) == 0:
        raise InputError(f"{text!r} is not a memory size. Write it like 8GiB or 500MiB")
    return int(float(match[1]) * UNITS[match[2].upper()])


@contextmanager
def importing_libraries() -> Iterator[None]:
    """Import torch and what builds on it a fifth faster, by not looking for garbage among their half a million objects.

    Nor are these objects examined later: they live as long as the process.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation has failed, on the GPU or in main memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return True
    return isinstance(error, RuntimeError) and any(reason in str(error).lower() for reason in FULL_MEMORY)
