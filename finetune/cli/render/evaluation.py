"""Renders an evaluation as text: the figures of every contestant, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.cli.console import duration, facts, table
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.evaluate import EvalResult, TaskScore


def render_evaluation(result: EvalResult, next_command: str) -> str:
    """Base and adapter side by side."""
    summary = facts(
        {
            "report": result.report,
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            "next": next_command,
        }
    )
    return f"{render_scores(result.tasks)}\n\n{summary}"


def render_scores(tasks: Mapping[str, TaskScore]) -> str:
    """One table with all tasks."""
    from finetune.cards.metric_names import METRIC_NAMES, PRINTED

    names = [METRIC_NAMES[name] for name in PRINTED]
    columns = ["task", "n", "majority", "", *names, "delta", "95 % interval", "p"]
    rows: list[Sequence[object]] = []
    for name, task in tasks.items():
        interval = f"{task.ci95[0]:+.3f} to {task.ci95[1]:+.3f}"
        majority = "" if task.majority is None else f"{task.majority:.3f}"
        rows.append([name, task.n, majority, task.baseline, *_scores(task.base), "", "", ""])
        rows.append(
            ["", "", "", "adapter", *_scores(task.adapter), f"{task.delta:+.3f}", interval, f"{task.p_value:.4f}"]
        )
    empty = [number for number in range(4, 4 + len(names)) if not any(row[number] for row in rows)]
    filled = [number for number in range(len(columns)) if number not in empty]
    return table([columns[number] for number in filled], [[row[number] for number in filled] for row in rows])


def _scores(values: Mapping[str, float | None]) -> list[str]:
    from finetune.cards.metric_names import PRINTED

    return ["" if (value := values.get(name)) is None else f"{value:.3f}" for name in PRINTED]
