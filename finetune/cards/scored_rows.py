"""Rows of an evaluation with the answer of each contestant, and the choice of those that its page lists."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain, zip_longest
from typing import Literal

from finetune.cards.templating import shorten

LISTED = 200  # rows per task; all of them are in samples.jsonl
PROMPT_LENGTH, ANSWER_LENGTH = 600, 300  # characters
SURE = 0.5  # a wrong label that is this much likelier than the expected one
CLOSE = 0.1  # the two likeliest labels, if their probabilities differ by at most this

Kind = Literal["wrong", "right", "lost", "won", "sure", "close"]
KINDS: dict[Kind, str] = {  # of answers that are right or wrong
    "wrong": "The adapter is wrong",
    "right": "The adapter is right",
    "lost": "The adapter is wrong, the base right",
    "won": "Only the adapter is right",
    "sure": "The adapter is sure and wrong",
    "close": "The adapter is nearly undecided",
}
TEXT_KINDS: dict[Kind, str] = {"lost": "The adapter scores lower than the base", "won": "The adapter scores highest"}


@dataclass(frozen=True)
class Answer:
    """A contestant's answer to a row, its score from 0 to 1, and the probability of the answer if it is a label."""

    text: str
    score: float
    probability: float | None = None


@dataclass(frozen=True)
class ScoredRow:
    """A row with the answer of each contestant.

    `margin` is how much likelier the adapter's answer was than the expected label, and `lead` how much likelier than the
    second most likely label, if labels were scored.
    """

    id: str
    instruction: str
    prompt: str
    reference: str
    answers: Mapping[str, Answer]  # by contestant, in the order of the report
    choices: tuple[str, ...] = ()
    margin: float = 0.0
    lead: float | None = None

    @property
    def base(self) -> Answer:
        """The answer of the base model or baseline."""
        return self.answers["base"]

    @property
    def adapter(self) -> Answer:
        """The answer of the adapter."""
        return self.answers["adapter"]


@dataclass(frozen=True)
class ListedRow:
    """A row as the page lists it: shortened, with the kinds that it belongs to."""

    row: ScoredRow
    kinds: tuple[Kind, ...]
    label: str  # the expected label in full, by which the list is filtered; empty if the task has none


def list_rows(rows: Sequence[ScoredRow], *, is_binary: bool, has_labels: bool, instruction: str) -> list[ListedRow]:
    """At most `LISTED` rows, errors first and the worst of them first.

    Every kind of row gets its share: one of each in turn until the list is full. The worst errors are the labels of which the
    adapter was surest, or the texts with the lowest score.

    Args:
        rows: all rows of a task.
        is_binary: whether answers are right or wrong, rather than more or less like the expected text.
        has_labels: whether the expected answers are labels, by which the list can be filtered.
        instruction: what every prompt begins with; the page says it once.
    """
    order = [row for lane in zip_longest(*_lanes(rows)) for row in lane if row]
    chosen = list(dict.fromkeys(row.id for row in order))[:LISTED]
    rank = {id_: place for place, id_ in enumerate(chosen)}
    listed = sorted((row for row in rows if row.id in rank), key=lambda row: (_badness(row), rank[row.id]))
    return [
        ListedRow(_shorten_row(row, instruction), _kinds(row, is_binary=is_binary), row.reference if has_labels else "")
        for row in listed
    ]


def shared_instruction(rows: Sequence[ScoredRow]) -> str:
    """The instruction of all prompts, or nothing if they have several."""
    instructions = {row.instruction for row in rows}
    return instructions.pop() if len(instructions) == 1 else ""


def _is_wrong(row: ScoredRow) -> bool:
    return row.adapter.score < 1


def _has_lost(row: ScoredRow) -> bool:
    return row.adapter.score < row.base.score


def _has_won(row: ScoredRow) -> bool:
    return all(row.adapter.score > answer.score for name, answer in row.answers.items() if name != "adapter")


def _is_close(row: ScoredRow) -> bool:
    return row.lead is not None and row.lead <= CLOSE


def _badness(row: ScoredRow) -> tuple[float, float, float]:
    """Sorts the worst error first, and right answers last."""
    return (row.adapter.score, -row.margin, -row.base.score) if _is_wrong(row) else (1, 0, 0)


def _lanes(rows: Sequence[ScoredRow]) -> list[list[ScoredRow]]:
    """The rows of each kind, the most instructive first, and all others."""
    lanes: list[tuple[Callable[[ScoredRow], bool], Callable[[ScoredRow], object]]] = [
        (_is_wrong, _badness),
        (_has_lost, lambda row: (row.adapter.score - row.base.score, -row.margin)),
        (_has_won, lambda row: row.base.score - row.adapter.score),
        (_is_close, lambda row: row.lead),
    ]
    ranked = [sorted(filter(belongs, rows), key=lambda row: (key(row), row.id)) for belongs, key in lanes]
    listed = {row.id for row in chain.from_iterable(ranked)}
    return [*ranked, [row for row in rows if row.id not in listed]]


def _kinds(row: ScoredRow, *, is_binary: bool) -> tuple[Kind, ...]:
    wrong = _is_wrong(row)
    kinds: dict[Kind, bool] = {
        "wrong": is_binary and wrong,
        "right": is_binary and not wrong,
        "lost": _has_lost(row),
        "won": _has_won(row),
        "sure": is_binary and wrong and row.margin >= SURE,
        "close": is_binary and _is_close(row),
    }
    return tuple(kind for kind, holds in kinds.items() if holds)


def _shorten_row(row: ScoredRow, instruction: str) -> ScoredRow:
    prompt = row.prompt if row.instruction in ("", instruction) else f"{row.instruction}\n\n{row.prompt}"
    answers = {name: replace(given, text=shorten(given.text, ANSWER_LENGTH)) for name, given in row.answers.items()}
    return replace(
        row,
        instruction="",
        prompt=shorten(prompt, PROMPT_LENGTH),
        reference=shorten(row.reference, ANSWER_LENGTH),
        answers=answers,
    )
