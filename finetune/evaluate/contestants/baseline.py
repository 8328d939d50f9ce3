"""What an encoder is compared with: its base model has no head, so it has no answers of its own."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping

from finetune.evaluate.answers import Answers
from finetune.evaluate.request import Baseline
from finetune.models.encoder_inputs import split_texts
from finetune.scoring.metrics import majority, token_f1
from finetune.scoring.tasks import EvalTask, Metric, reference_labels, write_labels

BASELINES: Mapping[Metric, Baseline] = {"weighted_f1": "majority", "micro_f1": "majority", "answer_f1": "sentence"}
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")


def ask_baseline(task: EvalTask) -> Answers:
    """The most frequent label, or set of labels, for every row; of a context, the sentence most like the question.

    Words in common with the question are the baseline of early reading comprehension (Richardson et al., MCTest, 2013).
    """
    if task.metric == "answer_f1":
        return Answers([_similar_sentence(*split_texts(row)) for row in task.examples])
    if task.metric == "weighted_f1":
        label = majority([str(row.label) for row in task.examples]).label
        return Answers([label] * len(task.examples))
    sets = Counter(reference_labels(row) for row in task.examples)
    labels = min(sets, key=lambda one: (-sets[one], one))
    return Answers([write_labels(labels)] * len(task.examples), [], [labels] * len(task.examples))


def _similar_sentence(question: str, context: str | None) -> str:
    sentences = [sentence for sentence in SENTENCE_END.split(context or "") if sentence] or [""]
    return max(sentences, key=lambda sentence: token_f1(question, sentence))
