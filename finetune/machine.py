"""How much memory this process has used, and giving back what it no longer needs."""

from __future__ import annotations

import ctypes
import gc
import resource
import sys


def peak_bytes() -> int:
    """The most memory used so far, in bytes: on the GPU where there is one, else resident memory of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux: man 2 getrusage


def give_back() -> None:
    """Return freed memory to the operating system, where the C library can: loading leaves hundreds of megabytes."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc; musl has none
        if trim is not None:
            trim(0)
