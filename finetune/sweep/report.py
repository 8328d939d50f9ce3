"""What a sweep leaves behind: the best recipe as YAML, the trials as JSON, and a picture of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import MaxNLocator, NullFormatter
from optuna.distributions import CategoricalDistribution

from finetune.artifacts import write_json
from finetune.recipe import AdapterRecipe
from finetune.sweep.request import SweepResult, TrialRecord
from finetune.sweep.space import Space, describe, is_log, show

STYLES = {"complete": ("o", "C0"), "pruned": ("v", "0.6")}  # marker and colour; the others have no value of their own


def write_report(folder: Path, result: SweepResult, recipe: AdapterRecipe, space: Space) -> None:
    """Write `best.yaml`, `sweep.json` and `sweep.png` to `folder`; `recipe` is that of the best trial."""
    (folder / "best.yaml").write_text(describe_best(result, recipe, space), "utf-8")
    facts = {
        "metric": result.metric,
        "seconds": result.seconds,
        "search": {name: describe(values) for name, values in space.items()},
        "best": asdict(result.best),
        "trials": [asdict(trial) for trial in result.trials],
    }
    write_json(folder / "sweep.json", facts)
    draw(result, space, folder / "sweep.png")


def describe_best(result: SweepResult, recipe: AdapterRecipe, space: Space) -> str:
    """The settings of the best trial that differ from the defaults or were set, with comments that say where from."""
    best, count = result.best, len(result.trials)
    comments = [
        f"The best of {count} trials of slmtune sweep: trial {best.number}, with {result.metric} {best.value:.4f} on the "
        "validation split.",
        "Train with it, on the same corpus: slmtune train --config FILE",
        *(f"Searched: {name} ({describe(values)})" for name, values in space.items()),
    ]
    settings: dict[str, Any] = recipe.model_dump(mode="json", exclude_unset=True, exclude={"report_to"})
    return "".join(f"# {line}\n" for line in comments) + yaml.safe_dump(settings, sort_keys=False, allow_unicode=True)


def draw(result: SweepResult, space: Space, picture: Path) -> None:
    """Draw the value of each trial in their order, and against each setting that was searched."""
    figure = Figure(figsize=(4 * (len(space) + 1), 3.6), dpi=120)
    axes: Sequence[Axes] = figure.subplots(1, len(space) + 1, sharey=True, squeeze=False)[0]
    _scatter(axes[0], result.trials, [trial.number for trial in result.trials])
    axes[0].set(xlabel="trial", ylabel=result.metric)
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, (name, values) in zip(axes[1:], space.items(), strict=True):
        tried: list[Any] = [trial.settings[name] for trial in result.trials]
        if isinstance(values, CategoricalDistribution):
            tried = [values.choices.index(value) for value in tried]  # evenly spaced, whatever their values
            axis.set_xticks(range(len(values.choices)), [show(choice) for choice in values.choices])
        elif is_log(values):
            axis.set_xscale("log")
            axis.xaxis.set_minor_formatter(NullFormatter())
            axis.set_xticks([values.low, math.sqrt(values.low * values.high), values.high])
            axis.xaxis.set_major_formatter(lambda value, position: show(value))
        _scatter(axis, result.trials, tried)
        axis.set(xlabel=name)
    axes[0].legend()
    ConstrainedLayoutEngine().execute(figure)  # once: a figure that has a layout is drawn twice when it is saved
    figure.savefig(picture)


def _scatter(axis: Axes, trials: Sequence[TrialRecord], positions: Sequence[float]) -> None:
    """Draw the trials that have a value: by state, each at its position."""
    for state, (marker, colour) in STYLES.items():
        points = [
            (position, trial.value) for trial, position in zip(trials, positions, strict=True) if trial.state == state
        ]
        if points:
            axis.plot(*zip(*points, strict=True), marker, color=colour, label=state)
    axis.grid(alpha=0.3)
