"""The evaluation as a file for programs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def eval_report(result: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The contents of report.json: figures and lineage, without any text of rows.

    Args:
        result: what `slmtune eval --json` prints.
        manifest: that of the report.
    """
    return {
        # Without the path of the page, and what was not measured.
        **{name: value for name, value in result.items() if name != "report" and value is not None},
        "split": manifest["config"]["split"],
        "parents": manifest["parents"],
        "eval_sets": manifest["eval_sets"],
        "libraries": manifest["libraries"],
        "slmtune_version": manifest["slmtune_version"],
        "created": manifest["created"],
    }
