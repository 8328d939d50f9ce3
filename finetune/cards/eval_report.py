"""The evaluation as a file for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def eval_report(
    tasks: Mapping[str, Mapping[str, Any]], manifest: Mapping[str, Any], seconds: float, peak_memory_bytes: int
) -> dict[str, Any]:
    """The contents of report.json: figures and lineage, without any text of rows."""
    return {
        "tasks": dict(tasks),
        "split": manifest["config"]["split"],
        "parents": manifest["parents"],
        "libraries": manifest["libraries"],
        "slmtune_version": manifest["slmtune_version"],
        "created": manifest["created"],
        "seconds": seconds,
        "peak_memory_bytes": peak_memory_bytes,
    }
