"""The page of an evaluation: figures, confusions, the loss of the training and the worst errors, without scripts.

It contains text of rows, as `samples.jsonl` does: an evaluation is never pushed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.cards.loss_curve import HEIGHT, WIDTH, LossCurve
from finetune.cards.metric_names import METRIC_NAMES, PRINTED
from finetune.cards.templating import ENVIRONMENT
from finetune.cards.verdict import RIVALS

WORST = 10
MATRIX_LABELS = 12  # more do not fit on a screen: then the most frequent confusions are listed
PROMPT_LENGTH, ANSWER_LENGTH = 600, 300  # characters


@dataclass(frozen=True)
class Answer:
    """A model's answer to a row, its score from 0 to 1, and the probability of the answer if it is a label."""

    text: str
    score: float
    probability: float | None = None


@dataclass(frozen=True)
class ScoredRow:
    """A row with the answer of each contestant; `margin` is how much likelier the adapter's was than the expected label."""

    id: str
    instruction: str
    prompt: str
    reference: str
    answers: Mapping[str, Answer]  # by contestant, in the order of the report
    choices: tuple[str, ...] = ()
    margin: float = 0.0

    @property
    def base(self) -> Answer:
        """The answer of the base model or baseline."""
        return self.answers["base"]

    @property
    def adapter(self) -> Answer:
        """The answer of the adapter."""
        return self.answers["adapter"]


@dataclass(frozen=True)
class Cell:
    """Rows with one expected and one given label, and their share of the rows with that expected label."""

    rows: int
    share: float
    right: bool


@dataclass(frozen=True)
class Confusion:
    """An expected label, the label that the adapter gave instead, and how often the adapter and its base did so."""

    expected: str
    given: str
    base: int
    adapter: int


@dataclass(frozen=True)
class TaskPage:
    """A task's part of the page."""

    labels: list[str]  # both axes of the matrices
    matrices: dict[str, list[list[Cell]]]  # by model; empty if the task has no labels, or too many
    confusions: list[Confusion]
    better: int
    worse: int
    errors: int
    worst: list[ScoredRow]
    instruction: str  # what the prompts of all the worst errors begin with


def eval_page(
    data: Mapping[str, Any],
    adapter: Mapping[str, Any],
    rows: Mapping[str, Sequence[ScoredRow]],
    curve: LossCurve | None,
) -> str:
    """The page as HTML.

    Args:
        data: the contents of report.json.
        adapter: the manifest of the adapter.
        rows: the evaluated rows by task.
        curve: the loss of the adapter's training, if it is known.
    """
    tasks = {name: _task_page(rows[name], task["majority"] is not None) for name, task in data["tasks"].items()}
    return ENVIRONMENT.get_template("report.html.jinja").render(
        report=data,
        adapter=adapter,
        tasks=tasks,
        curve=curve,
        width=WIDTH,
        height=HEIGHT,
        metric_names=METRIC_NAMES,
        rivals=RIVALS,
        with_base=all(task["baseline"] == "base" for task in data["tasks"].values()),
        baselines=sorted({RIVALS[task["baseline"]] for task in data["tasks"].values()}),
        with_pairs=any(task["metric"] == "preference_accuracy" for task in data["tasks"].values()),
        columns=[name for name in PRINTED if any(name in task["adapter"] for task in data["tasks"].values())],
        total=sum(task["n"] for task in data["tasks"].values()),
    )


def _task_page(rows: Sequence[ScoredRow], has_labels: bool) -> TaskPage:
    occurring = {text for row in rows for text in (row.reference, row.base.text, row.adapter.text)}
    ordered = dict.fromkeys([*(choice for row in rows for choice in row.choices), *sorted(occurring)])
    labels = [label for label in ordered if label in occurring]
    small = has_labels and len(labels) <= MATRIX_LABELS
    errors = [row for row in rows if row.adapter.score < 1]
    worst = sorted(errors, key=lambda row: (row.adapter.score, -row.margin, -row.base.score, row.id))[:WORST]
    instructions = {row.instruction for row in worst}
    return TaskPage(
        [shorten(label, ANSWER_LENGTH) for label in labels] if small else [],
        {name: _matrix(rows, labels, name) for name in ("base", "adapter")} if small else {},
        _confusions(rows) if has_labels and not small else [],
        sum(row.adapter.score > row.base.score for row in rows),
        sum(row.adapter.score < row.base.score for row in rows),
        len(errors),
        [_shorten_row(row, with_instruction=len(instructions) > 1) for row in worst],
        shorten(instructions.pop(), PROMPT_LENGTH) if len(instructions) == 1 else "",
    )


def _matrix(rows: Sequence[ScoredRow], labels: Sequence[str], model: str) -> list[list[Cell]]:
    """One line per expected label, one cell per given label."""
    counts = Counter((row.reference, row.answers[model].text) for row in rows)
    sizes = Counter(row.reference for row in rows)
    return [
        [Cell(counts[label, given], counts[label, given] / (sizes[label] or 1), label == given) for given in labels]
        for label in labels
    ]


def _confusions(rows: Sequence[ScoredRow]) -> list[Confusion]:
    """The most frequent wrong labels of the adapter."""
    base = Counter((row.reference, row.base.text) for row in rows)
    adapter = Counter((row.reference, row.adapter.text) for row in rows if row.adapter.text != row.reference)
    frequent = sorted(adapter.items(), key=lambda item: (-item[1], item[0]))[:MATRIX_LABELS]
    return [
        Confusion(shorten(pair[0], ANSWER_LENGTH), shorten(pair[1], ANSWER_LENGTH), base[pair], number)
        for pair, number in frequent
    ]


def _shorten_row(row: ScoredRow, *, with_instruction: bool) -> ScoredRow:
    prompt = f"{row.instruction}\n\n{row.prompt}" if with_instruction and row.instruction else row.prompt
    answers = {
        name: Answer(shorten(answer.text, ANSWER_LENGTH), answer.score, answer.probability)
        for name, answer in row.answers.items()
    }
    return ScoredRow(row.id, "", shorten(prompt, PROMPT_LENGTH), shorten(row.reference, ANSWER_LENGTH), answers)


def shorten(text: str, length: int) -> str:
    """The text with its middle left out if it is longer: a question may stand at either end of it."""
    if len(text) <= length:
        return text
    tail = length // 3
    return f"{text[: length - tail].rstrip()} […] {text[-tail:].lstrip()}"
