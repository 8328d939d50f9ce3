"""Renders sweeps as text: what would be searched, each trial, and all of them as a table."""

from __future__ import annotations

from typing import TYPE_CHECKING

from finetune.cli.console import duration, facts, table

if TYPE_CHECKING:
    from finetune.sweep import SweepPlan, SweepResult, TrialRecord


def render_sweep(result: SweepResult, next_command: str) -> str:
    """The trials and the best of them."""
    names = list(result.best.settings)
    rows = [
        [
            f"{trial.number}{' (best)' if trial.number == result.best.number else ''}",
            trial.state,
            _value(trial),
            *(_cell(trial.settings[name]) for name in names),
            "" if trial.seconds is None else duration(trial.seconds),
        ]
        for trial in result.trials
    ]
    states = [trial.state for trial in result.trials]
    counts = {state: states.count(state) for state in dict.fromkeys(states)}
    summary = {
        "sweep": result.sweep,
        "best": f"trial {result.best.number}, {result.metric.replace('_', ' ')} {_value(result.best)} on the validation split",
        "recipe": result.config,
        "picture": result.sweep / "sweep.png",
        "trials": ", ".join(f"{count} {state}" for state, count in counts.items()),
        "time": duration(result.seconds),
        "next": next_command,
    }
    return f"{table(['trial', 'state', result.metric, *names, 'time'], rows)}\n\n{facts(summary)}"


def describe_trial(trial: TrialRecord) -> str:
    """A finished trial in one line."""
    settings = ", ".join(f"{name} {_cell(value)}" for name, value in trial.settings.items())
    value = f" at {_value(trial)}" if trial.value is not None else ""
    return f"trial {trial.number} {trial.state}{value}: {settings}"


def render_sweep_plan(plan: SweepPlan) -> str:
    """The result of `sweep --dry-run`."""
    return facts(
        {
            "base model": plan.model,
            "rows": f"{plan.rows} to train on, {plan.validation_rows} to compare by",
            "trials": f"{plan.trials}, compared by their {plan.metric.replace('_', ' ')} on the validation split",
            "steps": f"{plan.steps} with the settings of the recipe",
            **{name.replace("_", " "): values for name, values in plan.search.items()},
        }
    )


def _value(trial: TrialRecord) -> str:
    return "" if trial.value is None else f"{trial.value:.4f}"


def _cell(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
