"""Draws the loss curve of a run."""

from __future__ import annotations

import json
from pathlib import Path

from matplotlib.figure import Figure


def draw(journal: Path, picture: Path) -> None:
    """Draw training and held-out loss (nats per supervised token) over optimizer steps."""
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.is_file() else []
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for name, label, style in (("loss", "training", "-"), ("eval_loss", "held out", "o-")):
        points = [(line["step"], line[name]) for line in lines if name in line]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.set(xlabel="optimizer step", ylabel="loss, nats per supervised token", ylim=(0, None))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(picture, dpi=120)
