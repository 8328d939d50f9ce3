"""The outcome of an evaluation in plain sentences, the same ones on the terminal, on the page and on the model card."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

Outcome = Literal["better", "worse", "unclear"]

RIVALS = {  # what an adapter is compared with
    "base": "its base model",
    "majority": "the most frequent label",
    "sentence": "the sentence of the context that is most like the question",
}
SIGNIFICANCE = 0.05  # fits the 95 % intervals
LONGEST_LABEL = 40  # characters; a longer one is not quoted


def read_outcome(comparison: Mapping[str, Any]) -> Outcome:
    """Whether the adapter is better or worse than another contestant: both its interval and its p-value must exclude chance."""
    low, high = comparison["ci95"]
    if low <= 0 <= high or comparison["p_value"] >= SIGNIFICANCE:
        return "unclear"
    return "better" if comparison["delta"] > 0 else "worse"


def verdict(task: Mapping[str, Any]) -> str:
    """What the figures of a task mean, in a few sentences.

    Args:
        task: an entry of `tasks` in report.json.
    """
    sentences = [_against_base(task), _against_others(task), _against_majority(task)]
    return " ".join(sentence for sentence in sentences if sentence)


def _against_base(task: Mapping[str, Any]) -> str:
    """The adapter against its base, and against the base with examples in the prompt: was tuning worth it?"""
    first = f"The adapter {_state(task, RIVALS[task.get('baseline', 'base')])}"
    few_shot = task.get("comparisons", {}).get("few_shot")
    if few_shot is None:
        return f"{first}."
    shots = task.get("shots")
    examples = f"{shots} example{'' if shots == 1 else 's'} in the prompt" if shots else "examples in the prompt"
    outcomes = read_outcome(task), read_outcome(few_shot)
    if outcomes == ("better", "better"):
        return f"{first}, and better than {examples} by {_size(few_shot)}: tuning paid."
    end = {
        "better": "",
        "unclear": ": such a prompt may do as well as tuning",
        "worse": ": such a prompt does more than tuning did",
    }[outcomes[1]]
    return f"{first}. It {_state(few_shot, examples)}{end}."


def _against_others(task: Mapping[str, Any]) -> str:
    """The adapter against the contestants that the user named."""
    comparisons = task.get("comparisons", {})
    outcomes = {name: read_outcome(comparisons[name]) for name in task.get("vs", ()) if name in comparisons}
    words = {"better": "better than", "worse": "worse than", "unclear": "not measurably different from"}
    parts = [
        f"{words[outcome]} {_join(name for name, one in outcomes.items() if one == outcome)}"
        for outcome in ("better", "worse", "unclear")
        if outcome in outcomes.values()
    ]
    return f"It is {_join(parts)}." if parts else ""


def _against_majority(task: Mapping[str, Any]) -> str:
    majority, accuracy = task["majority"], task["adapter"].get("accuracy")
    if majority is None or accuracy is None or accuracy > majority or task.get("baseline") == "majority":
        return ""
    label = task.get("majority_label")
    answer = f"answering “{label}”" if label and len(label) <= LONGEST_LABEL else "giving the most frequent answer"
    return f"It is not more accurate than always {answer}."


def _state(comparison: Mapping[str, Any], rival: str) -> str:
    outcome = read_outcome(comparison)
    if outcome == "unclear":
        return f"is not measurably different from {rival}: {_signed(comparison)}"
    return f"is {outcome} than {rival} by {_size(comparison)}"


def _size(comparison: Mapping[str, Any]) -> str:
    """A difference without its sign, and its interval."""
    low, high = sorted(abs(bound) for bound in comparison["ci95"])
    return f"{abs(comparison['delta']):.2f} ({low:.2f} to {high:.2f})"


def _signed(comparison: Mapping[str, Any]) -> str:
    low, high = comparison["ci95"]
    return f"{comparison['delta']:+.2f} ({low:+.2f} to {high:+.2f})"


def _join(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}" if first else last
