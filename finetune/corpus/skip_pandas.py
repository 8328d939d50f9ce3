"""Keeps pyarrow from importing pandas, of whose types no row of a corpus is."""

from __future__ import annotations

import sys

import pyarrow as pa


class _NotFound:
    """An import hook that finds no pandas."""

    def find_spec(self, name: str, path: object = None, target: object = None) -> None:
        """None leaves a module to the other hooks."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


def skip_pandas() -> None:
    """Let pyarrow convert lists and arrays without pandas, which its first conversion looks for: a sixth of a second.

    A later `to_pandas()` looks again and finds it (pyarrow 26).
    """
    if "pandas" in sys.modules:
        return
    hook = _NotFound()
    sys.meta_path.insert(0, hook)
    try:
        pa.array([0])
    finally:
        sys.meta_path.remove(hook)
