"""Conditions that an adapter must meet: read before a model is loaded, checked when the report is written."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from finetune.errors import CheckFailedError, ConfigError, did_you_mean
from finetune.evaluate.contestants.contestant import FEW_SHOT
from finetune.evaluate.request import EvalResult, Forgetting, GateResult, TaskScore
from finetune.scoring.tasks import EvalTask

OPERATORS: Mapping[str, Callable[[float, float], bool]] = {
    ">=": operator.ge,
    "<=": operator.le,
    ">": operator.gt,
    "<": operator.lt,
}
CONDITION = re.compile(r"\s*(?P<figure>[^<>]+?)\s*(?P<sign>>=|<=|>|<)\s*(?P<limit>[^\s,<>]+)\s*(?:,|$)")
EXAMPLE = '--gate "news.weighted_f1>=0.8,news.delta>0"'

# What a task with this headline metric is scored by.
METRICS: Mapping[str, tuple[str, ...]] = {
    "weighted_f1": ("weighted_f1", "accuracy", "macro_f1"),
    "micro_f1": ("micro_f1", "macro_f1", "exact_match"),
    "answer_f1": ("answer_f1", "exact_match"),
    "preference_accuracy": ("preference_accuracy", "reward_accuracy"),
    "chrf": ("chrf", "bleu"),
    "rouge_l": ("rouge_l", "rouge_1", "rouge_2"),
    "edit_similarity": ("edit_similarity", "exact_match", "parses"),
}
# Of the general probe: how much of it was lost, and the perplexity of the adapter divided by its base's.
GENERAL: Mapping[str, Callable[[Forgetting], float]] = {
    "forgetting": lambda measured: measured.drop,
    "perplexity": lambda measured: measured.perplexity.ratio,
}
DELTA, FEW_SHOT_DELTA = "delta", "few_shot_delta"  # the adapter minus its base, without and with examples in the prompt


@dataclass(frozen=True)
class Condition:
    """A bound on a figure of the adapter: of a task, or of the general probe, which is no task."""

    task: str | None
    figure: str
    sign: str
    limit: float

    def __str__(self) -> str:
        return f"{f'{self.task}.' if self.task else ''}{self.figure}{self.sign}{self.limit:g}"

    def check(self, tasks: Mapping[str, TaskScore], forgetting: Forgetting | None = None) -> GateResult:
        """Whether the figure keeps the bound; a figure that is not defined does not."""
        value: float | None = None
        if self.task:
            value, reason = _read_figure(tasks[self.task], self.figure)
        else:
            assert forgetting is not None  # otherwise `read_gate` refuses the condition
            value, reason = GENERAL[self.figure](forgetting), None
        is_met = value is not None and OPERATORS[self.sign](value, self.limit)
        return GateResult(str(self), value, is_met, reason)


def read_gate(
    texts: Sequence[str], tasks: Sequence[EvalTask], foreign: Sequence[str] = (), *, with_forgetting: bool = False
) -> list[Condition]:
    """The conditions in the values of --gate.

    Args:
        texts: the values.
        tasks: those of the evaluation.
        foreign: tasks that have figures of another program, whose names are not known yet.
        with_forgetting: whether it is measured what the adapter has forgotten.

    Raises:
        ConfigError: lists everything that is no condition, or about a task or a figure that is not there.
    """
    figures = {task.name: _figures_of(task) for task in tasks} | {name: [] for name in foreign}
    conditions, problems = [], []
    for text in texts:
        place = 0
        while place < len(text):
            match = CONDITION.match(text, place)
            if match is None:
                problems.append(f"--gate: {text[place:].strip()!r} is no condition. Write, for example, {EXAMPLE}")
                break
            place = match.end()
            condition = _read_condition(match, figures, with_forgetting=with_forgetting)
            if isinstance(condition, Condition):
                conditions.append(condition)
            else:
                problems.append(condition)
    if problems:
        raise ConfigError("command line", problems)
    return conditions


def require_gate(result: EvalResult) -> None:
    """Fail if the adapter misses a condition.

    Raises:
        CheckFailedError: names the conditions that are not met, with the values.
    """
    if missed := [one for one in result.gate if not one.passed]:
        raise CheckFailedError(
            f"The adapter misses {len(missed)} of {len(result.gate)} conditions of --gate: "
            f"{'; '.join(map(describe_condition, missed))}. The report is at {result.report}"
        )


def describe_condition(condition: GateResult) -> str:
    """A condition and the value of its figure, or the reason why it has none."""
    value = f"not defined, because {condition.reason}" if condition.value is None else f"{condition.value:.4f}"
    return f"{condition.condition} ({value})"


def _figures_of(task: EvalTask) -> list[str]:
    further = [name for metric in task.further for name in METRICS.get(metric, (metric,))]
    return [*METRICS.get(task.metric, (task.metric,)), *further, DELTA, FEW_SHOT_DELTA]


def _read_condition(
    match: re.Match[str], figures: Mapping[str, Sequence[str]], *, with_forgetting: bool
) -> Condition | str:
    """A condition, or what is wrong with it; a task without known figures may have any."""
    try:
        limit = float(match["limit"])
    except ValueError:
        return f"--gate: {match['limit']!r} is no number. Write, for example, {EXAMPLE}"
    task, _, figure = match["figure"].rpartition(".")
    if figure in GENERAL and not task:
        if with_forgetting:
            return Condition(None, figure, match["sign"], limit)
        return f"--gate: {figure} is not measured with --no-forgetting, or of an encoder"
    if task not in figures:
        return f"--gate: there is no task {task or figure!r}. {did_you_mean(task or figure, figures)}"
    if figure not in figures[task] and figures[task]:
        return f"--gate: {task} has no figure {figure!r}. {did_you_mean(figure, figures[task])}"
    if figures[task] and not -1 <= limit <= 1:
        return f"--gate: {figure} of {task} is never {match['sign']} {match['limit']}: scores are from 0 to 1"
    return Condition(task, figure, match["sign"], limit)


def _read_figure(task: TaskScore, figure: str) -> tuple[float | None, str | None]:
    """The value of a figure of the adapter, or the reason why it has none."""
    if figure == DELTA:
        return task.delta, None
    if figure == FEW_SHOT_DELTA:
        if FEW_SHOT in task.comparisons:
            return task.comparisons[FEW_SHOT].delta, None
        return None, task.absent.get(FEW_SHOT, "no base model with examples in the prompt took part")
    value = task.adapter.get(figure)
    return value, None if value is not None else task.undefined.get(figure, "these rows do not define it")
