"""How much memory this process has used."""

from __future__ import annotations

import resource
import sys


def peak_bytes() -> int:
    """The most memory used so far, in bytes: on the GPU where there is one, else resident memory of this process."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # kilobytes on Linux: man 2 getrusage
