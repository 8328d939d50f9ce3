"""Draws the loss curve of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

PREFERENCE = "preference_accuracy"


def draw(journal: Path, picture: Path, metric: str = "loss") -> None:
    """Draw training and held-out loss (in nats) over optimizer steps, and the metric if it is a score.

    Of preference tuning, the accuracy of preference is drawn whatever the metric is.
    """
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.is_file() else []
    figure = Figure(figsize=(7, 4))  # with room for numbers of six digits: a measured layout takes a third longer
    axes = figure.subplots(gridspec_kw={"left": 0.125, "right": 0.9, "bottom": 0.13, "top": 0.96})
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o-")):
        _plot(axes, lines, name, style, label)
    has_pairs = any(PREFERENCE in line for line in lines)
    unit, metric = ("pair of answers", PREFERENCE) if has_pairs else ("supervised token", metric)
    axes.set(xlabel="optimizer step", ylabel=f"loss, nats per {unit}", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend(loc="upper left")
    if metric != "loss":
        scores = axes.twinx()
        _plot(scores, lines, metric, ":", "training", color="tab:green")
        _plot(scores, lines, f"eval_{metric}", "s--", "held out", color="tab:green")
        scores.set(ylabel=metric.replace("_", " "), ylim=(0, 1.03))  # a line at 1 stays visible
        scores.legend(loc="upper right")
    figure.savefig(picture, dpi=120)


def _plot(axes: Any, lines: list[dict[str, float]], name: str, style: str, label: str, **options: Any) -> None:
    points = [(line["step"], line[name]) for line in lines if name in line]
    if points:
        axes.plot(*zip(*points, strict=True), style, label=label, **options)
