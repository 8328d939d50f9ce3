"""Scores of predictions; plain functions over lists."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Majority:
    """The most frequent label and what always answering it scores."""

    label: str
    scores: dict[str, float]


def classification_scores(labels: Sequence[str], predictions: Sequence[str]) -> dict[str, float]:
    """Accuracy, and F1 averaged over classes by their size (weighted) and equally (macro)."""
    from sklearn.metrics import accuracy_score, f1_score

    return {
        "accuracy": float(accuracy_score(labels, predictions)),
        "weighted_f1": float(f1_score(labels, predictions, average="weighted", zero_division=0)),
        "macro_f1": float(f1_score(labels, predictions, average="macro", labels=sorted(set(labels)), zero_division=0)),
    }


def majority(labels: Sequence[str]) -> Majority:
    """What a model that knows only the most frequent label would score."""
    label = min(Counter(labels).most_common(), key=lambda item: (-item[1], item[0]))[0]
    return Majority(label, classification_scores(labels, [label] * len(labels)))


def token_f1(reference: str, answer: str) -> float:
    """Overlap of words between an answer and its reference: harmonic mean of precision and recall.

    As for extractive question answering (Rajpurkar et al., SQuAD, 2016, section 6.1), without dropping articles.
    """
    wanted, given = Counter(_words(reference)), Counter(_words(answer))
    common = (wanted & given).total()
    return 2 * common / (wanted.total() + given.total()) if common else 0.0


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
