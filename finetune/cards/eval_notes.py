"""What a reader must know about the figures of a task: what is not defined, who is left out, and which answers do not count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from finetune.cards.metric_names import METRIC_NAMES
from finetune.cards.templating import sentence_case


def list_notes(task: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """One sentence each.

    Args:
        task: an entry of `tasks` in report.json.
        titles: what the contestants are called where a sentence begins; the others have their names.
    """
    for metric, reason in task["undefined"].items():
        yield f"{sentence_case(METRIC_NAMES[metric])} is not defined: {reason}."
    if task["train_overlap"]:
        yield f"The adapter was trained on {task['train_overlap']:,} of these rows{_without_them(task)}."
    for name, reason in task["absent"].items():
        yield f"{titles.get(name, name)} is left out: {reason}."
    for name, details in task["details"].items():
        title = titles.get(name, name)
        if details["unparsable"]:
            number = _count(details["unparsable"])
            yield f"{title}: {number} not what was asked for (a choice, a number), which counts as wrong."
        if details["abstained"]:
            yield f"{title}: {_count(details['abstained'])} empty or a refusal, which counts as wrong."
    if task["scorer"]:
        yield f"Scored by {task['scorer']}."


def list_scorings(task: Mapping[str, Any], titles: Mapping[str, str]) -> Iterator[str]:
    """What each way to score labels gives, one sentence per contestant."""
    for name, details in task["details"].items():
        if len(details["scorings"]) > 1:
            ways = [f"{way} {scores[task['metric']]:.3f}" for way, scores in details["scorings"].items()]
            yield (
                f"{titles.get(name, name)}, {METRIC_NAMES[task['metric']]} by the way labels are scored: {', '.join(ways)}; "
                f"used: {details['scoring']}."
            )


def _without_them(task: Mapping[str, Any]) -> str:
    """The figures of the rows on which the adapter was not trained, if there are any."""
    clean, metric = task["clean"], task["metric"]
    if clean is None or None in (clean["base"].get(metric), clean["adapter"].get(metric)):
        return ""
    low, high = clean["ci95"]
    change = f"{clean['base'][metric]:.3f} → {clean['adapter'][metric]:.3f}, {clean['delta']:+.3f}"
    return f"; {METRIC_NAMES[metric]} without these: {change} ({low:+.3f} to {high:+.3f})"


def _count(answers: int) -> str:
    return "1 answer is" if answers == 1 else f"{answers:,} answers are"
