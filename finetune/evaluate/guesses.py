"""What answers score that look at no row: always the most frequent label, or any of the choices at random."""

from __future__ import annotations

from collections import Counter

from finetune.scoring.metrics import majority
from finetune.scoring.tasks import EvalTask

Guesses = dict[str, dict[str, float]]  # scores by metric: of "majority" and of "random"


def guess_scores(task: EvalTask) -> Guesses:
    """The scores of both guesses; empty where there is nothing to guess from.

    Those of random guesses are expectations: each choice of a row is equally likely, and F1 is that of the expected counts.
    """
    if task.metric == "preference_accuracy":
        return {"random": {task.metric: 0.5}}
    if task.metric != "weighted_f1":
        return {}
    labels = [example.label or example.answer for example in task.examples]
    return {"majority": majority(labels).scores, "random": _guess_at_random(task, labels)}


def _guess_at_random(task: EvalTask, labels: list[str]) -> dict[str, float]:
    known = tuple(sorted(set(labels)))
    sizes = [len(example.choices or known) for example in task.examples]
    accuracy = {"accuracy": sum(1 / size for size in sizes) / len(sizes)}
    if len({example.choices for example in task.examples}) > 1:
        return accuracy
    # A label that share s of the rows have, given to 1/k of them: s/k right, s expected, 1/k given.
    shares = [number / len(labels) for number in Counter(labels).values()]
    f1 = [2 * share / (sizes[0] * share + 1) for share in shares]
    weighted = sum(share * one for share, one in zip(shares, f1, strict=True))
    return accuracy | {"weighted_f1": weighted, "macro_f1": sum(f1) / len(f1)}
