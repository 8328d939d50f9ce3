"""Renders evaluations side by side as text: a block per task with a line per report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.cli.console import paragraph, table

if TYPE_CHECKING:
    from finetune.evaluate.compare import CompareResult, TaskComparison

WARNINGS = {
    "other": "The reports are about different rows: these figures cannot be compared.",
    "unknown": "At least one report does not say which rows it is about: these figures may not be comparable.",
}


def render_comparison(result: CompareResult) -> str:
    """The figures of every report, and how far each is from the first one."""
    first = next(iter(result.reports))
    blocks = [_render_task(name, task, first) for name, task in result.tasks.items()]
    if result.forgetting:
        rows = [
            [name, drop.n, *(f"{value:.3f}" for value in (drop.base, drop.adapter, drop.drop)), _interval(drop.ci95)]
            for name, drop in result.forgetting.items()
        ]
        grid = table(["", "items", "base", "adapter", "drop", "95 %\ninterval"], rows, fold_first=True)
        blocks.append(f"forgetting\n{grid}")
    return "\n\n".join(blocks)


def _render_task(name: str, task: TaskComparison, first: str) -> str:
    from finetune.cards.metric_names import METRIC_NAMES  # here: `slmtune --help` imports this module

    rows = []
    for report, figure in task.figures.items():
        row = [report, str(figure.n), f"{figure.value:.3f}", "" if figure.ci95 is None else _interval(figure.ci95)]
        if (difference := task.differences.get(report)) is not None:
            row += [f"{difference.delta:+.3f}", _interval(difference.ci95, "+"), f"{difference.p_value:.4f}"]
        rows.append([*row, *[""] * (7 - len(row))])
    columns = ["", "rows", "adapter", "95 %\ninterval", "minus\nfirst", "95 %\ninterval", "p"]
    if not task.differences:
        columns, rows = columns[:4], [row[:4] for row in rows]
    lines = [f"{name}: {METRIC_NAMES.get(task.metric, task.metric)}", table(columns, rows, fold_first=True)]
    if task.rows in WARNINGS:
        lines.append(paragraph(WARNINGS[task.rows]))
    elif missing := [report for report in task.figures if report != first and report not in task.differences]:
        lines.append(
            paragraph(f"Without samples of both, {', '.join(missing)} and {first} are not compared row by row.")
        )
    return "\n".join(lines)


def _interval(bounds: tuple[float, float], sign: str = "") -> str:
    return " to ".join(f"{bound:{sign}.3f}" for bound in bounds)
