"""The answers that are scored, and how labels and pairs are picked from log-probabilities."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Any

import numpy as np

from finetune.scoring.label_scores import SCORINGS, LabelScores, Scoring
from finetune.scoring.metrics import Pair, classification_scores
from finetune.scoring.numbers import is_number, read_number
from finetune.scoring.tasks import EvalTask, read_labels


@dataclass(frozen=True)
class Answers:
    """The answers to the rows of a task, in order; of labels and pairs, also their probabilities.

    Of a pair, the answer is the likelier one of the two. `unparsable` are the numbers of the rows whose text is none of the
    choices, or not a number if one is asked for, and `abstained` those without an answer: it is empty, or a refusal to answer.
    Both count as wrong. `shots` is how many examples the prompts contain. `scorings` are the labels by each way to score them,
    of which `scoring` is the one that counts.
    """

    texts: list[str]
    probabilities: list[dict[str, float]] = field(default_factory=list)
    labels: list[tuple[str, ...]] = field(default_factory=list)
    logprobs: list[Pair] = field(default_factory=list)
    unparsable: frozenset[int] = frozenset()
    abstained: frozenset[int] = frozenset()
    shots: int = 0
    scoring: Scoring | None = None
    scorings: dict[Scoring, list[str]] = field(default_factory=dict)

    def take(self, rows: Sequence[int]) -> Answers:
        """The answers to some of the rows, in the given order."""
        places = {row: number for number, row in enumerate(rows)}

        def choose(value: Any) -> Any:
            if isinstance(value, list):
                return [value[row] for row in rows] if value else []
            if isinstance(value, frozenset):
                return frozenset(places[row] for row in value if row in places)
            return {name: choose(each) for name, each in value.items()} if isinstance(value, dict) else value

        return replace(self, **{one.name: choose(getattr(self, one.name)) for one in fields(self)})


def pick_labels(task: EvalTask, rows: Sequence[LabelScores], *, tuned: bool) -> Answers:
    """The choice with the highest score for each row, and the probabilities of the choices relative to each other.

    An adapter is scored raw, as it was trained. Any other model gets the way that suits it best on these very rows: that
    favours it, so that what an adapter gains is rather under- than overstated.
    """
    picks = {
        way: [example.choices[row.best(way)] for example, row in zip(task.examples, rows, strict=True)]
        for way in SCORINGS
    }
    references = [example.label or example.answer for example in task.examples]
    f1 = {way: classification_scores(references, texts)["weighted_f1"] for way, texts in picks.items()}
    scoring: Scoring = "raw" if tuned else max(SCORINGS, key=lambda way: f1[way])
    probabilities = []
    for example, row in zip(task.examples, rows, strict=True):
        scores = np.array(row.scores(scoring))
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        probabilities.append(
            {choice: round(float(share), 6) for choice, share in zip(example.choices, shares, strict=True)}
        )
    return Answers(picks[scoring], probabilities, scoring=scoring, scorings=picks)


def read_texts(task: EvalTask, texts: list[str]) -> Answers:
    """Generated answers: of several labels, those that each lists; of numbers, which answers have none."""
    rows = list(zip(task.examples, texts, strict=True))
    if task.metric == "micro_f1":
        return Answers(texts, [], [read_labels(text, row.choices) for row, text in rows])
    if task.metric == "number_match":
        lacking = (n for n, (row, text) in enumerate(rows) if is_number(row.answer) and read_number(text) is None)
        return Answers(texts, unparsable=frozenset(lacking))
    return Answers(texts)


def pick_answers(task: EvalTask, pairs: Sequence[Pair]) -> Answers:
    """The likelier answer of each pair, and the probabilities of both relative to each other."""
    texts, probabilities = [], []
    for example, (chosen, rejected) in zip(task.examples, pairs, strict=True):
        texts.append((example.messages if chosen > rejected else example.rejected)[-1].text)
        share = 1 / (1 + math.exp(min(rejected - chosen, 700.0)))  # more would overflow
        probabilities.append({"chosen": round(share, 6), "rejected": round(1 - share, 6)})
    return Answers(texts, probabilities, logprobs=list(pairs))
