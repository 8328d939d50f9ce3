"""Imports bitsandbytes without torch.compile.

bitsandbytes 0.50 compiles its fallbacks for devices without kernels of their own. Importing the compiler takes 0.7 s, and
the fallbacks give the same results uncompiled.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch


def _leave_uncompiled(function: Callable[..., Any] | None = None, **options: Any) -> Any:
    return (lambda decorated: decorated) if function is None else function


_torch: Any = torch
_compile, _torch.compile = torch.compile, _leave_uncompiled
try:
    import bitsandbytes  # noqa: F401 # for the modules that import it later
finally:
    _torch.compile = _compile
