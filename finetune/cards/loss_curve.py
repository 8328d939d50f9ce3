"""The loss of a training run, read from the adapter's `training.jsonl`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

JOURNAL = "training.jsonl"
WIDE = 10  # losses that differ by more than this factor are drawn on a logarithmic scale

Point = tuple[float, float]  # (step, loss in nats per supervised token)


@dataclass(frozen=True)
class LossCurve:
    """Training and held-out loss over optimizer steps."""

    training: list[Point]
    held_out: list[Point]

    @property
    def lines(self) -> dict[str, list[Point]]:
        """The lines that have points, by name."""
        return {name: line for name, line in (("training", self.training), ("held out", self.held_out)) if line}

    @property
    def logarithmic(self) -> bool:
        """Whether the losses differ too much for an even scale."""
        losses = [loss for line in self.lines.values() for _, loss in line]
        return 0 < min(losses) * WIDE < max(losses)


def read_loss_curve(adapter: Path) -> LossCurve | None:
    """The curve of an adapter's training, or None if its folder does not have at least two logged steps."""
    journal = adapter / JOURNAL
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.is_file() else []
    training, held_out = ([(line["step"], line[key]) for line in lines if key in line] for key in ("loss", "eval_loss"))
    return LossCurve(training, held_out) if len(training) > 1 else None
