"""The scores of answers: per row, and per task with the comparison of base and adapter."""

from __future__ import annotations

from collections.abc import Sequence

from finetune.cards.eval_page import Answer, ScoredRow
from finetune.evaluate import significance
from finetune.evaluate.answers import Answers
from finetune.evaluate.request import Baseline, TaskScore
from finetune.evaluate.significance import Comparison
from finetune.records import Message
from finetune.scoring import metrics
from finetune.scoring.tasks import EvalTask, reference_labels
from finetune.scoring.texts import score_text, score_texts


def score_rows(task: EvalTask, base: Answers, adapter: Answers) -> list[ScoredRow]:
    """Each row with both answers and their scores: 1 or 0 for a label or a pair, F1 for several, what fits for a text."""
    rows = []
    for number, example in enumerate(task.examples):
        reference = example.label or example.answer
        both = _score_answer(task, base, number, reference), _score_answer(task, adapter, number, reference)
        chances = adapter.probabilities[number] if adapter.probabilities else {}
        margin = chances.get(both[1].text, 0.0) - chances.get(reference, 0.0)
        if task.metric == "preference_accuracy":
            margin = chances["rejected"] - chances["chosen"]
        instruction = "\n\n".join(message.content for message in example.prompt if message.role == "system")
        prompt = _turns(example.prompt)
        rows.append(ScoredRow(example.id, instruction, prompt, reference, *both, example.choices, margin))
    return rows


def score_task(
    task: EvalTask, rows: Sequence[ScoredRow], base: Answers, adapter: Answers, baseline: Baseline
) -> TaskScore:
    """The figures of a task, and whether the difference is more than chance."""
    comparison = _compare(task, rows, base, adapter)
    labels = [row.reference for row in rows] if task.metric == "weighted_f1" else []
    majority = metrics.majority(labels) if labels else None
    rewards = {"reward_accuracy": metrics.reward_accuracy(base.logprobs, adapter.logprobs)} if base.logprobs else {}
    return TaskScore(
        n=len(rows),
        metric=task.metric,
        majority=majority.scores["accuracy"] if majority else None,
        majority_label=majority.label if majority else None,
        base=_means(task, base),
        adapter=_means(task, adapter) | rewards,
        delta=comparison.delta,
        ci95=comparison.ci95,
        p_value=comparison.p_value,
        baseline=baseline,
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
        return score_texts(task.metric, references, answers.texts)
    pairs = list(zip(references, answers.texts, strict=True))
    measures = {"exact_match": metrics.answer_match, "answer_f1": metrics.answer_f1}
    return {name: sum(measure(*pair) for pair in pairs) / len(pairs) for name, measure in measures.items()}


def _compare(task: EvalTask, rows: Sequence[ScoredRow], base: Answers, adapter: Answers) -> Comparison:
    """Adapter against base in the headline metric."""
    if task.metric == "weighted_f1":
        return significance.compare_labels([row.reference for row in rows], base.texts, adapter.texts)
    if task.metric == "micro_f1":
        truth = [reference_labels(row) for row in task.examples]
        return significance.compare_label_sets(truth, base.labels, adapter.labels)
    return significance.compare_means([row.base.score for row in rows], [row.adapter.score for row in rows])


def _turns(prompt: Sequence[Message]) -> str:
    """The turns of a conversation as text, each with its role if there are several."""
    turns = [message for message in prompt if message.role != "system"]
    return "\n\n".join(turn.text if len(turns) == 1 else f"{turn.role}: {turn.text}" for turn in turns)
