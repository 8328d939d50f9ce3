"""The answers that are scored: those of a model, or those of the baseline that an encoder is compared with."""

from __future__ import annotations

import logging
import math
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from finetune.errors import InputError
from finetune.evaluate.request import Baseline
from finetune.models.encoder_inputs import encode, split_texts
from finetune.models.heads import Head
from finetune.models.load import LoadedModel
from finetune.scoring import answers as answering
from finetune.scoring.encoders import Labelling, predict
from finetune.scoring.metrics import Pair, majority, token_f1
from finetune.scoring.tasks import EvalTask, Metric, read_labels, reference_labels, write_labels

# What an encoder is compared with: its base model has no head, so it has no answers.
BASELINES: Mapping[Metric, Baseline] = {"weighted_f1": "majority", "micro_f1": "majority", "answer_f1": "sentence"}
SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Answers:
    """The answers to the rows of a task, in order; of labels and pairs, also their probabilities.

    Of a pair, the answer is the likelier one of the two.
    """

    texts: list[str]
    probabilities: list[dict[str, float]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    logprobs: list[Pair] = field(default_factory=list)


def ask_model(
    loaded: LoadedModel, task: EvalTask, *, batch_size: int, max_new_tokens: int, on_rows: Callable[[int], None]
) -> Answers:
    """What a causal language model answers: the most likely choice, the likelier answer of a pair, or a text."""
    if task.metric == "weighted_f1":
        rows = answering.label_logprobs(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_labels(task, rows)
    if task.metric == "preference_accuracy":
        pairs = answering.pair_logprobs(loaded, task.examples, batch_size=batch_size, on_rows=on_rows)
        return pick_answers(task, pairs)
    texts = answering.generate(
        loaded, task.examples, batch_size=batch_size, max_new_tokens=max_new_tokens, on_rows=on_rows
    )
    if task.metric != "micro_f1":
        return Answers(texts)
    labels = [read_labels(text, row.choices) for text, row in zip(texts, task.examples, strict=True)]
    return Answers(texts, [], labels)


def ask_encoder(
    loaded: LoadedModel, task: EvalTask, *, batch_size: int, max_length: int, on_rows: Callable[[int], None]
) -> Answers:
    """What an encoder answers; it reads as many tokens of a row as in training."""
    inputs = [encode(loaded.tokenizer, row, max_length) for row in task.examples]
    if cut := sum(one.truncated for one in inputs):
        log.warning(
            "%d of %d rows of %s are longer than %d tokens: the adapter read only a part of them, as in training.",
            *(cut, len(inputs), task.name, max_length),
        )
    contexts = [row.context for row in task.examples]
    texts, probabilities, labels = [], [], []
    for row in predict(loaded, inputs, contexts, batch_size=batch_size, on_rows=on_rows):
        if isinstance(row, Labelling):
            texts.append(write_labels(row.labels))
            probabilities.append({label: round(share, 6) for label, share in row.probabilities.items()})
            labels.append(row.labels)
        else:
            texts.append(row.text)
    return Answers(texts, probabilities, labels)


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


def pick_labels(task: EvalTask, rows: Sequence[Sequence[float]]) -> Answers:
    """The most likely choice for each row, and the probabilities of the choices relative to each other."""
    texts, probabilities = [], []
    for example, row in zip(task.examples, rows, strict=True):
        shares = np.exp(np.array(row) - max(row))
        shares /= shares.sum()
        texts.append(example.choices[int(np.argmax(row))])
        probabilities.append(
            {choice: round(float(share), 6) for choice, share in zip(example.choices, shares, strict=True)}
        )
    return Answers(texts, probabilities)


def pick_answers(task: EvalTask, pairs: Sequence[Pair]) -> Answers:
    """The likelier answer of each pair, and the probabilities of both relative to each other."""
    texts, probabilities = [], []
    for example, (chosen, rejected) in zip(task.examples, pairs, strict=True):
        texts.append((example.messages if chosen > rejected else example.rejected)[-1].text)
        share = 1 / (1 + math.exp(min(rejected - chosen, 700.0)))  # more would overflow
        probabilities.append({"chosen": round(share, 6), "rejected": round(1 - share, 6)})
    return Answers(texts, probabilities, logprobs=list(pairs))


def require_rows(head: Head, tasks: Sequence[EvalTask], split: str) -> None:
    """Refuse rows that an encoder cannot answer: without a label or a context, or with a label that it does not know.

    Raises:
        InputError: names how many there are, the first of them, and the labels.
    """
    rows = [row for task in tasks for row in task.examples]
    if head.kind == "extraction":
        lacking, what = [row for row in rows if row.context is None], "context, in which this adapter finds answers"
    elif head.kind == "multi-label":
        lacking, what = [row for row in rows if row.labels is None and row.label is None], "label"
    else:
        lacking, what = [row for row in rows if row.label is None], "label of their own"
    if lacking:
        raise InputError(
            f"{len(lacking)} of {len(rows)} rows of the {split} split have no {what}; the first is {lacking[0].id}. Evaluate "
            "on rows like those of the training, or on some of them with --task"
        )
    unknown = {label: row.id for row in reversed(rows) for label in reference_labels(row) if label not in head.labels}
    if unknown and head.kind != "extraction":
        raise InputError(
            f"The {split} split has labels that this adapter does not know: {', '.join(sorted(unknown))} (in row "
            f"{min(unknown.values())}). It knows {', '.join(head.labels)}. Evaluate on the corpus it was trained on, or train "
            "again"
        )


def _similar_sentence(question: str, context: str | None) -> str:
    sentences = [sentence for sentence in SENTENCE_END.split(context or "") if sentence] or [""]
    return max(sentences, key=lambda sentence: token_f1(question, sentence))
