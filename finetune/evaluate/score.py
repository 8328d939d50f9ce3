"""The scores of answers: per row, and per task with the comparison of the adapter and every other contestant."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from finetune.cards.scored_rows import Answer, ScoredRow
from finetune.evaluate.answers import Answers
from finetune.evaluate.calibration import calibrate
from finetune.evaluate.classes import class_scores
from finetune.evaluate.contestants.contestant import ADAPTER, BASE, FEW_SHOT
from finetune.evaluate.details import ClassScore, Interval, ModelDetails
from finetune.evaluate.guesses import guess_scores
from finetune.evaluate.request import Baseline, Comparison, TaskScore
from finetune.evaluate.significance import (
    compare,
    interval,
    label_sets_scorer,
    labels_scorer,
    mcnemar,
    means_scorer,
    resample,
)
from finetune.records import Message
from finetune.scoring import metrics
from finetune.scoring.tasks import EvalTask, reference_labels
from finetune.scoring.texts import score_text, score_texts

EXACT_METRICS = {"weighted_f1": "accuracy", "micro_f1": "exact_match"}  # the headline where F1 is not defined
# Headline metrics of answers that are either right or wrong.
BINARY_METRICS = {"weighted_f1", "accuracy", "preference_accuracy", "exact_match", "number_match"}


def score_rows(task: EvalTask, answers: Mapping[str, Answers]) -> list[ScoredRow]:
    """Each row with all answers and their scores: 1 or 0 for a label or a pair, F1 for several, what fits for a text."""
    rows = []
    for number, example in enumerate(task.examples):
        reference = example.label or example.answer
        scored = {name: _score_answer(task, given, number, reference) for name, given in answers.items()}
        probabilities = answers[ADAPTER].probabilities
        chances = probabilities[number] if probabilities else {}
        margin = chances.get(scored[ADAPTER].text, 0.0) - chances.get(reference, 0.0)
        if task.metric == "preference_accuracy":
            margin = chances["rejected"] - chances["chosen"]
        instruction = "\n\n".join(message.content for message in example.prompt if message.role == "system")
        prompt = _turns(example.prompt)
        lead = _lead(chances.values())
        rows.append(ScoredRow(example.id, instruction, prompt, reference, scored, example.choices, margin, lead))
    return rows


def score_task(
    task: EvalTask,
    rows: Sequence[ScoredRow],
    answers: Mapping[str, Answers],
    baseline: Baseline,
    absent: Mapping[str, str],
) -> TaskScore:
    """The figures of a task, and whether the differences are more than chance."""
    undefined = undefined_metrics(task)
    metric = EXACT_METRICS[task.metric] if task.metric in undefined else task.metric
    scores = {name: {**_means(task, given), **dict.fromkeys(undefined)} for name, given in answers.items()}
    if answers[BASE].logprobs:
        rewards = metrics.reward_accuracy(answers[BASE].logprobs, answers[ADAPTER].logprobs)
        scores[ADAPTER]["reward_accuracy"] = rewards
    comparisons, intervals = _compare(task, metric, rows, answers)
    guesses, against_base = guess_scores(task), comparisons[BASE]
    labels = [row.reference for row in rows] if "majority" in guesses else []
    return TaskScore(
        n=len(rows),
        metric=metric,
        majority=guesses["majority"]["accuracy"] if labels else None,
        majority_label=metrics.majority(labels).label if labels and _are_classes(rows) else None,
        base=scores[BASE],
        adapter=scores[ADAPTER],
        delta=against_base.delta,
        ci95=against_base.ci95,
        p_value=against_base.p_value,
        baseline=baseline,
        few_shot=scores.get(FEW_SHOT),
        shots=answers[FEW_SHOT].shots if FEW_SHOT in answers else 0,
        vs={name: figures for name, figures in scores.items() if name not in (BASE, FEW_SHOT, ADAPTER)},
        comparisons=comparisons,
        absent=absent,
        details={name: _describe(task, rows, name, answers[name], intervals[name]) for name in answers},
        random=guesses.get("random", {}).get("accuracy"),
        guesses=guesses,
        undefined=undefined,
        rows_hash=hash_rows(rows),
    )


def hash_rows(rows: Sequence[ScoredRow]) -> str:
    """SHA-256 over what identifies the rows: their ids, prompts and expected answers."""
    texts = [(row.id, row.instruction, row.prompt, row.reference) for row in rows]
    return hashlib.sha256(json.dumps(texts).encode()).hexdigest()


def _are_classes(rows: Sequence[ScoredRow]) -> bool:
    """Whether all rows have the same choices; otherwise these are answers to one question each, and text of rows."""
    return len({row.choices for row in rows}) == 1


def undefined_metrics(task: EvalTask) -> dict[str, str]:
    """The metrics that these rows do not define, each with its reason."""
    if task.metric == "weighted_f1" and len({example.label or example.answer for example in task.examples}) == 1:
        reason = "all rows have the same label, so F1 says nothing about telling labels apart"
        return dict.fromkeys(("weighted_f1", "macro_f1"), reason)
    if task.metric == "micro_f1" and not any(reference_labels(example) for example in task.examples):
        return dict.fromkeys(("micro_f1", "macro_f1"), "no row has a label, so none can be recognised")
    return {}


def _lead(chances: Iterable[float]) -> float | None:
    """How much likelier the most likely answer is than the next one, if there are two."""
    first, second, *_ = [*sorted(chances, reverse=True), None, None]
    return None if first is None or second is None else first - second


def _score_answer(task: EvalTask, answers: Answers, number: int, reference: str) -> Answer:
    text, example = answers.texts[number], task.examples[number]
    if task.metric == "weighted_f1":
        probability = answers.probabilities[number][text] if answers.probabilities else None
        return Answer(text, float(text == reference), probability)
    if task.metric == "preference_accuracy":
        chosen, rejected = answers.logprobs[number]
        return Answer(text, float(chosen > rejected), max(answers.probabilities[number].values()))
    if task.metric == "micro_f1":
        return Answer(text, metrics.label_set_f1(reference_labels(example), answers.labels[number]))
    if task.metric == "answer_f1":
        return Answer(text, metrics.answer_f1(reference, text))
    return Answer(text, score_text(task.metric, reference, text))


def _means(task: EvalTask, answers: Answers) -> dict[str, float]:
    """The scores of all answers together, by their names."""
    references = [example.label or example.answer for example in task.examples]
    if task.metric == "weighted_f1":
        return metrics.classification_scores(references, answers.texts)
    if task.metric == "micro_f1":
        return metrics.label_set_scores([reference_labels(row) for row in task.examples], answers.labels)
    if task.metric == "preference_accuracy":
        return {"preference_accuracy": metrics.preference_accuracy(answers.logprobs)}
    if task.metric != "answer_f1":
        return score_texts([task.metric, *task.further], references, answers.texts)
    pairs = list(zip(references, answers.texts, strict=True))
    measures = {"exact_match": metrics.answer_match, "answer_f1": metrics.answer_f1}
    return {name: sum(measure(*pair) for pair in pairs) / len(pairs) for name, measure in measures.items()}


def _compare(
    task: EvalTask, metric: str, rows: Sequence[ScoredRow], answers: Mapping[str, Answers]
) -> tuple[dict[str, Comparison], dict[str, Interval]]:
    """The adapter against each other contestant in the headline metric, and the interval of each contestant's figure."""
    names = list(answers)
    if metric == "weighted_f1":
        score = labels_scorer([row.reference for row in rows], [answers[name].texts for name in names])
    elif metric == "micro_f1":
        score = label_sets_scorer(
            [reference_labels(row) for row in task.examples], [answers[name].labels for name in names]
        )
    else:
        score = means_scorer([[row.answers[name].score for row in rows] for name in names])
    resampled, adapter = resample(score, len(names), len(rows)), names.index(ADAPTER)
    comparisons = {}
    for number, name in enumerate(names):
        if name != ADAPTER:
            figures = compare(score, resampled, len(rows), number, adapter)
            comparisons[name] = count_differences(figures, rows, name, is_binary=metric in BINARY_METRICS)
    bounds = [interval(one) if len(rows) > 1 else (0.0, 1.0) for one in resampled]
    return comparisons, dict(zip(names, bounds, strict=True))


def count_differences(figures: Comparison, rows: Sequence[ScoredRow], name: str, *, is_binary: bool) -> Comparison:
    """The comparison with the number of rows on which the adapter scores higher or lower, and McNemar's test of these."""
    better = sum(row.adapter.score > row.answers[name].score for row in rows)
    worse = sum(row.adapter.score < row.answers[name].score for row in rows)
    p_value = mcnemar(better, worse) if is_binary else None
    return replace(figures, better=better, worse=worse, mcnemar_p_value=p_value)


def _describe(task: EvalTask, rows: Sequence[ScoredRow], name: str, answers: Answers, ci95: Interval) -> ModelDetails:
    """What stands behind the scores of a contestant."""
    classes: tuple[ClassScore, ...] = ()
    if task.metric == "weighted_f1" and _are_classes(rows):
        given = [(text,) for text in answers.texts]
        classes = class_scores(rows[0].choices, [(row.reference,) for row in rows], given)
    elif task.metric == "micro_f1" and _are_classes(rows):
        classes = class_scores(rows[0].choices, [reference_labels(row) for row in task.examples], answers.labels)
    sure = [row.answers[name].probability for row in rows]
    right = [row.answers[name].score == 1 for row in rows]
    known = [one for one in sure if one is not None]
    calibration = calibrate(known, right) if len(known) == len(right) else None
    scorings = {str(way): _means(task, replace(answers, texts=texts)) for way, texts in answers.scorings.items()}
    return ModelDetails(
        ci95=ci95,
        classes=classes,
        calibration=calibration,
        unparsable=len(answers.unparsable),
        abstained=len(answers.abstained),
        scoring=answers.scoring,
        scorings=scorings,
    )


def _turns(prompt: Sequence[Message]) -> str:
    """The turns of a conversation as text, each with its role if there are several."""
    turns = [message for message in prompt if message.role != "system"]
    return "\n\n".join(turn.text if len(turns) == 1 else f"{turn.role}: {turn.text}" for turn in turns)
