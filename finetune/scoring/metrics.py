"""Scores of predictions; plain functions over lists."""

from __future__ import annotations

import math
import re
import string
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

ARTICLES = frozenset({"a", "an", "the"})


Pair = tuple[float, float]  # log-probabilities of a chosen and a rejected answer, in nats


@dataclass(frozen=True)
class Majority:
    """The most frequent label, and the score of always giving it."""

    label: str
    scores: dict[str, float]


def classification_scores(labels: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over classes, weighted by size (weighted) or equally (macro)."""
    codes = {name: code for code, name in enumerate(sorted({*labels, *predictions}))}
    truth, answers = (np.array([codes[name] for name in names]) for names in (labels, predictions))
    size, f1 = _class_f1(truth, answers, len(codes))
    return {
        "accuracy": float((truth == answers).mean()),
        "weighted_f1": float(np.average(f1, weights=size)),
        "macro_f1": float(f1[size > 0].mean()),
    }


def weighted_f1(truth: NDArray[np.intp], answers: NDArray[np.intp], classes: int) -> NDArray[np.float64]:
    """F1 per class, averaged with weights by class size: (…) for samples of rows, (…, rows); equal to scikit-learn's."""
    size, f1 = _class_f1(truth, answers, classes)
    averages: NDArray[np.float64] = np.average(f1, axis=-1, weights=size)
    return averages


def _class_f1(truth: NDArray[np.intp], answers: NDArray[np.intp], classes: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Rows and F1 per class, (…, classes); F1 is 0 if a class occurs neither in the labels nor in the answers."""
    truth, answers = np.broadcast_arrays(truth, answers)
    shape = (*truth.shape[:-1], classes)
    first = np.arange(0, math.prod(shape), classes).reshape(*shape[:-1], 1)  # the number of each sample's first class

    def count(numbers: NDArray[np.intp]) -> NDArray[np.intp]:
        return np.bincount(numbers.ravel(), minlength=math.prod(shape)).reshape(shape)

    size, answered = count(first + truth), count(first + answers)
    right = count((first + truth)[truth == answers])
    return size, np.divide(2 * right, size + answered, out=np.zeros(shape), where=(size + answered) > 0)


def majority(labels: Sequence[str]) -> Majority:
    """The score of a model that always gives the most frequent label."""
    label = min(Counter(labels).most_common(), key=lambda item: (-item[1], item[0]))[0]
    return Majority(label, classification_scores(labels, [label] * len(labels)))


def label_set_scores(truth: Sequence[Collection[str]], predictions: Sequence[Collection[str]]) -> dict[str, float]:
    """F1 over all pairs of a row and a label (micro), the mean of F1 per label (macro), and the share of equal sets.

    Rows without labels count: a label given to one is a mistake. F1 is 0 if no label occurs at all.
    """
    names = sorted({name for row in (*truth, *predictions) for name in row})
    counts = {name: label_counts([name], truth, predictions) for name in names}
    expected = sorted({name for row in truth for name in row})
    return {
        "micro_f1": float(count_f1(label_counts(names, truth, predictions).sum(0))),
        "macro_f1": float(np.mean([float(count_f1(counts[name].sum(0))) for name in expected] or [0.0])),
        "exact_match": float(np.mean([set(one) == set(other) for one, other in zip(truth, predictions, strict=True)])),
    }


def label_set_f1(truth: Collection[str], prediction: Collection[str]) -> float:
    """F1 of the labels of one row; 1 if there are none and none is given."""
    if not (truth or prediction):
        return 1.0
    return float(count_f1(label_counts([*truth, *prediction], [truth], [prediction])[0]))


def label_counts(
    names: Sequence[str], truth: Sequence[Collection[str]], predictions: Sequence[Collection[str]]
) -> NDArray[np.intp]:
    """Right, expected and given labels among `names`, per row: (rows, 3)."""
    known = set(names)
    rows = [(known & set(one), known & set(other)) for one, other in zip(truth, predictions, strict=True)]
    return np.array([[len(one & other), len(one), len(other)] for one, other in rows], np.intp)


def count_f1(counts: NDArray[np.intp]) -> NDArray[np.float64]:
    """F1 (…) from the numbers of right, expected and given labels (…, 3); 0 where there are none."""
    right, expected, given = np.moveaxis(counts, -1, 0)
    labels = expected + given
    f1: NDArray[np.float64] = np.divide(2 * right, labels, out=np.zeros(labels.shape), where=labels > 0)
    return f1


def answer_match(reference: str, answer: str) -> float:
    """1 if an extracted answer is the reference, else 0; case, punctuation, articles and blanks do not count.

    The exact match of extractive question answering (Rajpurkar et al., SQuAD, 2016, section 6.1).
    """
    return float(_answer_words(reference) == _answer_words(answer))


def answer_f1(reference: str, answer: str) -> float:
    """Word overlap of an extracted answer and the reference, compared as for `answer_match`, from the same paper."""
    ours, theirs = _answer_words(reference), _answer_words(answer)
    common = (Counter(ours) & Counter(theirs)).total()
    return 2 * common / (len(ours) + len(theirs)) if common else float(ours == theirs)


def _answer_words(text: str) -> list[str]:
    kept = "".join(character for character in text.lower() if character not in string.punctuation)
    return [word for word in kept.split() if word not in ARTICLES]


def preference_accuracy(pairs: Sequence[Pair]) -> float:
    """The share of pairs whose chosen answer is likelier than the rejected one."""
    return sum(chosen > rejected for chosen, rejected in pairs) / len(pairs)


def reward_accuracy(base: Sequence[Pair], adapter: Sequence[Pair]) -> float:
    """The share of pairs whose chosen answer has the higher implicit reward: that gained more from base to adapter.

    The reward of an answer is the logarithm of its gain in probability, times a constant (Rafailov et al., DPO, 2023,
    section 5); the base model itself gives every answer the same.
    """
    pairs = zip(base, adapter, strict=True)
    return preference_accuracy([(after[0] - before[0], after[1] - before[1]) for before, after in pairs])


def token_f1(reference: str, answer: str) -> float:
    """Word overlap between an answer and its reference: the harmonic mean of precision and recall.

    As for extractive question answering (Rajpurkar et al., SQuAD, 2016, section 6.1), without dropping articles.
    """
    ours, theirs = Counter(_words(reference)), Counter(_words(answer))
    common = (ours & theirs).total()
    return 2 * common / (ours.total() + theirs.total()) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
