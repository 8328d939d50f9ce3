"""The scores of answers: per row, and per task with the comparison of the adapter and every other contestant."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from finetune.cards.eval_page import Answer, ScoredRow
from finetune.evaluate import significance
from finetune.evaluate.answers import Answers
from finetune.evaluate.contestants.contestant import ADAPTER, BASE
from finetune.evaluate.request import Baseline, Comparison, TaskScore
from finetune.records import Message
from finetune.scoring import metrics
from finetune.scoring.tasks import EvalTask, reference_labels
from finetune.scoring.texts import score_text, score_texts


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
        rows.append(ScoredRow(example.id, instruction, prompt, reference, scored, example.choices, margin))
    return rows


def score_task(
    task: EvalTask,
    rows: Sequence[ScoredRow],
    answers: Mapping[str, Answers],
    baseline: Baseline,
    absent: Mapping[str, str],
) -> TaskScore:
    """The figures of a task, and whether the differences are more than chance."""
    comparisons = {name: _compare(task, rows, answers, name) for name in answers if name != ADAPTER}
    labels = [row.reference for row in rows] if task.metric == "weighted_f1" else []
    majority = metrics.majority(labels) if labels else None
    base, adapter = answers[BASE], answers[ADAPTER]
    rewards = {"reward_accuracy": metrics.reward_accuracy(base.logprobs, adapter.logprobs)} if base.logprobs else {}
    against_base = comparisons.pop(BASE)
    return TaskScore(
        n=len(rows),
        metric=task.metric,
        majority=majority.scores["accuracy"] if majority else None,
        majority_label=majority.label if majority else None,
        base=_means(task, base),
        adapter=_means(task, adapter) | rewards,
        delta=against_base.delta,
        ci95=against_base.ci95,
        p_value=against_base.p_value,
        baseline=baseline,
        others={name: _means(task, answers[name]) for name in comparisons},
        comparisons=comparisons,
        absent=absent,
    )


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


def _compare(task: EvalTask, rows: Sequence[ScoredRow], answers: Mapping[str, Answers], name: str) -> Comparison:
    """The adapter against another contestant in the headline metric."""
    other, adapter = answers[name], answers[ADAPTER]
    if task.metric == "weighted_f1":
        return significance.compare_labels([row.reference for row in rows], other.texts, adapter.texts)
    if task.metric == "micro_f1":
        truth = [reference_labels(row) for row in task.examples]
        return significance.compare_label_sets(truth, other.labels, adapter.labels)
    return significance.compare_means(
        [row.answers[name].score for row in rows], [row.answers[ADAPTER].score for row in rows]
    )


def _turns(prompt: Sequence[Message]) -> str:
    """The turns of a conversation as text, each with its role if there are several."""
    turns = [message for message in prompt if message.role != "system"]
    return "\n\n".join(turn.text if len(turns) == 1 else f"{turn.role}: {turn.text}" for turn in turns)
