"""The loss of a training run as lines of a chart, read from the adapter's `training.jsonl`."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

JOURNAL = "training.jsonl"
WIDTH, HEIGHT = 600, 200  # of the chart, in its own units: it is stretched to the page
MOST_TICKS = 8
WIDE = 10  # losses that differ by more than this factor are drawn on a logarithmic scale

Point = tuple[float, float]  # (step, loss in nats per supervised token)


@dataclass(frozen=True)
class Tick:
    """A number beside an axis, and its distance from the origin in percent of the axis."""

    label: str
    place: float


@dataclass(frozen=True)
class LossCurve:
    """Training and held-out loss over optimizer steps, in the units of the chart."""

    training: list[Point]
    held_out: list[Point]
    logarithmic: bool
    across: list[Tick]
    up: list[Tick]
    ends: dict[str, Point]  # what each line ends with: (step, loss)


def read_loss_curve(adapter: Path) -> LossCurve | None:
    """The curve of an adapter's training, or None if its folder does not have at least two logged steps."""
    journal = adapter / JOURNAL
    lines = [json.loads(line) for line in journal.read_text("utf-8").splitlines()] if journal.is_file() else []
    points: dict[str, list[Point]] = {
        name: [(line["step"], line[key]) for line in lines if key in line]
        for name, key in (("training", "loss"), ("held out", "eval_loss"))
    }
    return _draw(points) if len(points["training"]) > 1 else None


def _draw(points: dict[str, list[Point]]) -> LossCurve:
    losses = [loss for line in points.values() for _, loss in line]
    last = max(step for line in points.values() for step, _ in line)
    logarithmic = 0 < min(losses) * WIDE < max(losses)
    marks = _powers(min(losses), max(losses)) if logarithmic else _multiples(max(losses))

    def height(loss: float) -> float:
        """The share of the vertical axis below a loss."""
        if logarithmic:
            return math.log(loss / marks[0]) / math.log(marks[-1] / marks[0])
        return loss / marks[-1]

    def place(line: Sequence[Point]) -> list[Point]:
        return [(round(WIDTH * step / last, 1), round(HEIGHT * (1 - height(loss)), 1)) for step, loss in line]

    return LossCurve(
        place(points["training"]),
        place(points["held out"]),
        logarithmic,
        [Tick(f"{step:,.0f}", 100 * step / last) for step in _multiples(last, whole=True) if step <= last],
        [Tick(f"{mark:g}", 100 * height(mark)) for mark in marks],
        {name: line[-1] for name, line in points.items() if line},
    )


def _multiples(most: float, *, whole: bool = False) -> list[float]:
    """0 and the multiples of a round number, up to the first that is not below `most`."""
    most = most or 1.0
    power = 10.0 ** math.floor(math.log10(most))
    sizes = [size * power / 10 for size in (1, 2, 5, 10, 20) if not whole or size * power >= 10]
    size = next(size for size in sizes if most / size <= MOST_TICKS - 1)
    return [round(number * size, 12) for number in range(math.ceil(most / size) + 1)]


def _powers(least: float, most: float) -> list[float]:
    """Round numbers, evenly spread on a logarithmic scale, from one not above `least` to one not below `most`."""
    low, high = math.floor(math.log10(least)), math.ceil(math.log10(most))
    stride = math.ceil((high - low) / (MOST_TICKS - 2))
    powers = [10.0**power for power in range(low, high + stride, stride)]
    for digits in ((1, 2, 5), (1, 3), (1,)):
        marks = [digit * power for power in powers for digit in digits]
        marks = marks[sum(mark <= least for mark in marks) - 1 :]
        marks = marks[: sum(mark < most for mark in marks) + 1]
        if stride == 1 and len(marks) <= MOST_TICKS:
            break
    return marks
