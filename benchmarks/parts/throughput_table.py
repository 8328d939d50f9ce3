"""The measurements of benchmarks/train_throughput.py, as lines of a table and as ratios."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

HEADS = ("", "tokens/s", "supervised/s", "peak GiB", "train loss", "held-out", "loop s", "wall s", "GFLOP/s", "of mm")


@dataclass(frozen=True)
class Measurement:
    """One training run; `seconds` of the loop, rates in operations per second, losses in nats per token."""

    trainer: str
    round: int
    steps: int
    tokens: int
    supervised: int
    computed: int
    seconds: float
    wall: float
    peak: int
    train_loss: float
    held_out: float
    flops: float
    executed_flops: float
    mm_flops: float

    @property
    def rate(self) -> float:
        """Tokens per second."""
        return self.tokens / self.seconds


def head() -> str:
    """The names of the columns."""
    return "{:<12} {:>10} {:>12} {:>10} {:>10} {:>10} {:>8} {:>8} {:>9} {:>7}".format(*HEADS)


def line(name: str, runs: list[Measurement]) -> str:
    """A row of the table: medians."""

    def middle(value: Callable[[Measurement], float]) -> float:
        return statistics.median(map(value, runs))

    return (
        f"{name:<12} {middle(lambda m: m.rate):>10.1f} {middle(lambda m: m.supervised / m.seconds):>12.1f}"
        f" {middle(lambda m: m.peak) / 2**30:>10.3f} {middle(lambda m: m.train_loss):>10.4f}"
        f" {middle(lambda m: m.held_out):>10.4f} {middle(lambda m: m.seconds):>8.1f} {middle(lambda m: m.wall):>8.1f}"
        f" {middle(lambda m: m.flops) / 1e9:>9.1f} {middle(lambda m: m.flops / m.mm_flops):>7.1%}"
    )


def notes(runs: list[Measurement]) -> list[str]:
    """Facts without a column: the spread of the held-out loss, and the tokens that were computed."""
    lines = []
    if len(runs) > 1:
        spread = statistics.stdev(run.held_out for run in runs)
        lines.append(f"standard deviation of its held-out loss {spread:.4f}")
    if any(run.computed != run.tokens for run in runs):
        share = statistics.median(run.computed / run.tokens for run in runs)
        executed = statistics.median(run.executed_flops / run.mm_flops for run in runs)
        lines.append(f"computed {share:.1%} of its tokens; executed: {executed:.1%} of mm")
    return [f"{'':12} {note}" for note in lines]


def ratios(runs: list[Measurement], own: str, others: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    """One trainer compared with the others in the same round, and the medians of the rounds."""
    compared: dict[str, Callable[[Measurement, Measurement], float]] = {
        "tokens/s, {} / {}": lambda mine, theirs: mine.rate / theirs.rate,
        "peak memory, {} / {}": lambda mine, theirs: mine.peak / theirs.peak,
        "held-out loss, {} - {}": lambda mine, theirs: mine.held_out - theirs.held_out,
    }
    results = {}
    for other in others:
        sides = ([run for run in runs if run.trainer == name] for name in (own, other))
        pairs = list(zip(*sides, strict=False))
        for name, compare in compared.items() if pairs else ():
            values = [compare(mine, theirs) for mine, theirs in pairs]
            results[name.format(own, other)] = {"median": statistics.median(values), "rounds": values}
    return results
