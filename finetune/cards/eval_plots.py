"""The figures on the page of an evaluation: scores as bars, calibration, and the loss of the training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from finetune.cards.loss_curve import LossCurve
from finetune.cards.svg import BAR, INK, MUTED, SOFT, WRONG, draw_svg
from finetune.cards.templating import shorten

WIDTH = 440  # pixels: readable on a telephone, and two fit beside each other on a screen
NAME_LENGTH = 44  # characters of a contestant's name that fit above its bar
LINE_STYLES = ("--", ":")


@dataclass(frozen=True)
class Bar:
    """A contestant's score from 0 to 1, with its 95 % interval."""

    name: str
    value: float
    interval: tuple[float, float]
    is_adapter: bool


@dataclass(frozen=True)
class Bin:
    """Answers of about the same probability: its mean, the share of right ones, and their number."""

    confidence: float
    accuracy: float
    rows: int


def draw_bars(name: str, bars: Sequence[Bar], lines: Mapping[str, float], metric: str) -> str:
    """One bar per contestant with its interval, and a mark on it for each figure that needs no model, such as the majority."""

    def paint(axes: Axes) -> None:
        for place, bar in enumerate(bars):
            axes.barh(place, bar.value, height=0.4, color=BAR if bar.is_adapter else MUTED)
            axes.text(0, place - 0.3, shorten(" ".join(bar.name.split()), NAME_LENGTH))
            axes.text(1, place - 0.3, f"{bar.value:.3f}", horizontalalignment="right")
            low, high = bar.interval
            whiskers = [[max(bar.value - low, 0.0)], [max(high - bar.value, 0.0)]]
            axes.errorbar(bar.value, place, xerr=whiskers, color=INK, linewidth=1.5, capsize=4)
            for style, value in zip(LINE_STYLES, lines.values(), strict=False):
                axes.vlines(value, place - 0.26, place + 0.26, color=INK, linewidth=1.5, linestyle=style)
        axes.set(xlim=(0, 1), ylim=(len(bars) - 0.6, -0.85), yticks=[], xticks=[0, 0.25, 0.5, 0.75, 1])
        axes.spines["left"].set_visible(False)

    figures = [f"{bar.name} {bar.value:.3f} ({bar.interval[0]:.3f} to {bar.interval[1]:.3f})" for bar in bars]
    figures += [f"{who} {value:.3f}" for who, value in lines.items()]
    return draw_svg((WIDTH, 40 * len(bars) + 34), paint, name, f"{metric} by contestant: {', '.join(figures)}")


def draw_reliability(name: str, sides: Mapping[str, Sequence[Bin]]) -> str:
    """The share of right answers over the probability of the answer; points below the diagonal are overconfident."""

    def paint(axes: Axes) -> None:
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1, linestyle="--")
        for who, bins in sides.items():
            color, most = BAR if who == "adapter" else MUTED, max(each.rows for each in bins)
            across, up = [each.confidence for each in bins], [each.accuracy for each in bins]
            axes.plot(across, up, color=color, linewidth=2)
            axes.scatter(across, up, [16 + 80 * each.rows / most for each in bins], color=color)
        axes.set(xlim=(-0.02, 1.04), ylim=(-0.02, 1.06), xlabel="probability of the answer", ylabel="share right")

    description = f"Reliability diagram of {' and '.join(sides)}: share right by probability of the answer"
    return draw_svg((WIDTH, 300), paint, name, description)


def draw_loss(name: str, curve: LossCurve) -> str:
    """Loss over optimizer steps."""

    def paint(axes: Axes) -> None:
        axes.plot(*zip(*curve.training, strict=True), color=BAR, linewidth=2)
        if curve.held_out:
            axes.plot(*zip(*curve.held_out, strict=True), "o-", color=WRONG, linewidth=2, markersize=6)
        axes.set(xlabel="optimizer step", xlim=(0, None))
        axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, steps=[1, 2, 5, 10]))
        if curve.logarithmic:
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=8))
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_locator(NullLocator())
        else:
            axes.set_ylim(0, None)

    ends = [f"{who} ends with {line[-1][1]:.3f} at step {line[-1][0]:,.0f}" for who, line in curve.lines.items()]
    return draw_svg((WIDTH, 240), paint, name, f"Loss by step: {', '.join(ends)}")
