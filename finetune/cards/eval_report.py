"""The evaluation as one file for programs and one for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from finetune.cards.templating import ENVIRONMENT

METRIC_NAMES = {"accuracy": "accuracy", "weighted_f1": "weighted F1", "macro_f1": "macro F1", "token_f1": "token F1"}


def as_json(
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


def as_html(data: Mapping[str, Any], adapter: Mapping[str, Any]) -> str:
    """One self-contained page: table, bars with intervals and lineage, without scripts or external resources."""
    template = ENVIRONMENT.get_template("report.html.jinja")
    return template.render(report=data, adapter=adapter, metric_names=METRIC_NAMES)
