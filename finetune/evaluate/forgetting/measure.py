"""What was forgotten: the base model's scores on the probe minus the adapter's, and the perplexities of general prose."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from finetune.evaluate import significance
from finetune.evaluate.answers import Answers
from finetune.evaluate.forgetting.probe import CATEGORIES, INSTRUCTIONS, PASSAGES, read_instructions, task_name
from finetune.evaluate.forgetting.rules import follows
from finetune.evaluate.request import Forgetting, PerplexityChange, ScoreDrop
from finetune.scoring.metrics import Pair
from finetune.scoring.tasks import EvalTask


def measure_forgetting(tasks: Sequence[EvalTask], answers: Mapping[str, Mapping[str, Answers]]) -> Forgetting:
    """Compare the answers of base and adapter item by item; `answers` are by task and contestant."""
    by_name = {task.name: task for task in tasks}
    base, adapter = ({task.name: answers[task.name][name] for task in tasks} for name in ("base", "adapter"))
    scores = {name: [_score(by_name[task_name(name)], side) for side in (base, adapter)] for name in CATEGORIES}
    before, after = ([score for pair in scores.values() for score in pair[side]] for side in (0, 1))
    whole, p_value = _drop(before, after)
    return Forgetting(
        n=whole.n,
        base=whole.base,
        adapter=whole.adapter,
        drop=whole.drop,
        ci95=whole.ci95,
        p_value=p_value,
        categories={name: _drop(*pair)[0] for name, pair in scores.items()},
        perplexity=compare_perplexity(base[task_name(PASSAGES)].logprobs, adapter[task_name(PASSAGES)].logprobs),
    )


def _score(task: EvalTask, answers: Mapping[str, Answers]) -> list[float]:
    """1 for a right answer or one that keeps its rule, else 0."""
    texts = answers[task.name].texts
    if task.name == task_name(INSTRUCTIONS):
        return [float(follows(rule, text)) for rule, text in zip(read_instructions(), texts, strict=True)]
    return [float(text == row.label) for row, text in zip(task.examples, texts, strict=True)]


def _drop(before: Sequence[float], after: Sequence[float]) -> tuple[ScoreDrop, float]:
    change = significance.compare_means(before, after)
    low, high = change.ci95
    means = sum(before) / len(before), sum(after) / len(after)
    return ScoreDrop(len(before), *means, means[0] - means[1], (-high, -low)), change.p_value


def compare_perplexity(base: Sequence[Pair], adapter: Sequence[Pair], seed: int = 0) -> PerplexityChange:
    """The perplexity per token over all passages, and how it changes; a bootstrap over passages gives the interval.

    Args:
        base: the log-probability of each passage in nats, and the number of its tokens.
        adapter: the same of the adapter.
    """
    before, after = np.array(base), np.array(adapter)
    tokens = before[:, 1]
    losses = np.stack([-before[:, 0], -after[:, 0]])
    drawn = np.random.default_rng(seed).integers(0, len(tokens), (significance.RESAMPLES, len(tokens)))
    ratios = np.exp((losses[1] - losses[0])[drawn].sum(1) / tokens[drawn].sum(1))
    perplexities = np.exp(losses.sum(1) / tokens.sum())
    return PerplexityChange(
        n=len(tokens),
        tokens=int(tokens.sum()),
        base=float(perplexities[0]),
        adapter=float(perplexities[1]),
        ratio=math.exp(float((losses[1] - losses[0]).sum() / tokens.sum())),
        ci95=significance.interval(ratios),
    )
