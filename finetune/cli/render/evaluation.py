"""Renders an evaluation as text: the figures of every contestant, what they mean, and where the report is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from finetune.cli.console import duration, facts, paragraph, table
from finetune.machine import format_bytes

if TYPE_CHECKING:
    from finetune.evaluate import EvalResult, TaskScore
    from finetune.evaluate.request import Forgetting

MOST_METRICS = 2  # beside which the intervals of the figures themselves fit in 80 columns


def render_evaluation(result: EvalResult, next_command: str) -> str:
    """All contestants side by side, task by task."""
    summary = facts(
        {
            **_forgetting(result.forgetting),
            **_training_rows(result.tasks),
            "report": result.report,
            "peak memory": format_bytes(result.peak_memory_bytes),
            "time": duration(result.seconds),
            "next": next_command,
        }
    )
    return "\n\n".join([render_scores(result.tasks), *_render_gate(result), summary])


def _render_gate(result: EvalResult) -> list[str]:
    """A line per condition of --gate that is not met, or one that says that all are."""
    from finetune.evaluate.gate import describe_condition

    if missed := [one for one in result.gate if not one.passed]:
        return ["\n".join(f"gate failed: {describe_condition(one)}" for one in missed)]
    return [f"gate passed: {', '.join(map(describe_condition, result.gate))}"] if result.gate else []


def _training_rows(tasks: Mapping[str, TaskScore]) -> dict[str, str]:
    """That nobody knows whether the adapter was trained on these rows; nothing if it is known."""
    is_known = any(task.train_overlap is not None for task in tasks.values())
    return {} if is_known else {"training rows": "not compared with these: this machine did not train the adapter"}


def _forgetting(forgetting: Forgetting | None) -> dict[str, str]:
    """What the adapter has forgotten, if that was measured."""
    if forgetting is None:
        return {}
    low, high = forgetting.ci95
    prose, (least, most) = forgetting.perplexity, forgetting.perplexity.ci95
    return {
        "forgetting": f"{forgetting.n} items: {forgetting.base:.3f} → {forgetting.adapter:.3f}, drop {forgetting.drop:+.3f} "
        f"({low:+.3f} to {high:+.3f})",
        "perplexity": f"of general prose: {prose.base:.2f} → {prose.adapter:.2f}, ratio {prose.ratio:.3f} "
        f"({least:.3f} to {most:.3f})",
    }


def render_scores(tasks: Mapping[str, TaskScore]) -> str:
    """One block per task: its table, its verdict, and what cannot be read off the figures."""
    from finetune.cards.verdict import verdict  # here: `slmtune --help` imports this module

    blocks = []
    for name, task in tasks.items():
        heading = f"{name}: {task.n} row{'' if task.n == 1 else 's'}"
        facts = asdict(task)
        texts = [verdict(facts), *_notes(facts)]
        blocks.append("\n".join([heading, _render_task(task), *map(paragraph, texts)]))
    return "\n\n".join(blocks)


def _render_task(task: TaskScore) -> str:
    """One line per contestant, and before them the answers that look at no row."""
    from finetune.cards.metric_names import METRIC_NAMES, PRINTED

    guesses = {name: scores for name, scores in task.guesses.items() if name != task.baseline}
    every: list[Mapping[str, float | None]] = [*guesses.values(), *task.scores.values()]
    metrics = [name for name in PRINTED if any(scores.get(name) is not None for scores in every)]
    if task.scorer:  # has metrics of its own
        metrics = list(task.adapter)[:MOST_METRICS]
    with_interval = len(metrics) <= MOST_METRICS
    columns = ["", *(METRIC_NAMES.get(name, name).replace(" ", "\n") for name in metrics)]
    columns += ["95 %\ninterval"] if with_interval else []
    rows = [[name, *_scores(scores, metrics)] for name, scores in guesses.items()]
    for name, scores in task.scores.items():
        row = [task.baseline if name == "base" else name, *_scores(scores, metrics)]
        if with_interval:
            row.append(_interval(task.details[name].ci95, "{:.3f}") if name in task.details else "")
        if (comparison := task.comparisons.get(name)) is not None:
            interval = _interval(comparison.ci95, "{:+.3f}")
            row += [f"{comparison.delta:+.3f}", interval, f"{comparison.p_value:.4f}"]
        rows.append(row)
    columns += ["adapter\nminus it", "95 %\ninterval", "p"]
    return table(columns, [[*row, *[""] * (len(columns) - len(row))] for row in rows], fold_first=True)


def _notes(task: Mapping[str, Any]) -> list[str]:
    """What the table does not say: notes as on the page, how sure the contestants are, and how their labels are scored."""
    from finetune.cards.eval_notes import list_notes

    details = task["details"].items()
    errors = [f"{name} {one['calibration']['ece']:.3f}" for name, one in details if one["calibration"]]
    ways = [f"{name} {one['scoring']}" for name, one in details if one["scoring"]]
    notes = [f"Expected calibration error: {', '.join(errors)}."] if errors else []
    notes += [f"Labels are scored: {', '.join(ways)}."] if ways else []
    return [*notes, *list_notes(task, {"base": task["baseline"]})]


def _scores(values: Mapping[str, float | None], metrics: Sequence[str]) -> list[str]:
    return ["–" if (value := values.get(name)) is None else f"{value:.3f}" for name in metrics]


def _interval(bounds: tuple[float, float], form: str) -> str:
    return " to ".join(form.format(bound) for bound in bounds)
