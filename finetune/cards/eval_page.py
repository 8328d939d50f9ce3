"""The page of an evaluation: verdict, figures with intervals, confusions, instructive rows, training and origin.

One file without external resources; its only script filters the lists of rows, and the page is whole without it. It contains
text of rows, as `samples.jsonl` does: an evaluation is never pushed.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from finetune.artifacts import Adapter
from finetune.cards import eval_confusions, eval_plots
from finetune.cards.eval_confusions import MATRIX_LABELS, Cell, Confusion
from finetune.cards.eval_notes import list_notes, list_scorings
from finetune.cards.eval_plots import Bar, Bin
from finetune.cards.loss_curve import LossCurve
from finetune.cards.metric_names import METRIC_NAMES, PRINTED
from finetune.cards.model_facts import Subject
from finetune.cards.scored_rows import (
    ANSWER_LENGTH,
    KINDS,
    PROMPT_LENGTH,
    TEXT_KINDS,
    Kind,
    ListedRow,
    ScoredRow,
    list_rows,
    shared_instruction,
)
from finetune.cards.templating import ENVIRONMENT, read_script, sentence_case, shorten
from finetune.cards.verdict import RIVALS, verdict

FILTER_LABELS = 200  # more expected labels are not offered as a filter
OPEN_CLASSES = 20  # a longer table of classes is folded
TITLES = {"few_shot": "few-shot base"}  # of contestants whose name is not a name for people
HEADINGS = {name: sentence_case(title) for name, title in TITLES.items()}


@dataclass(frozen=True)
class Side:
    """A contestant of a task: its scores, what stands behind them, and how the adapter compares with it."""

    name: str
    title: str
    scores: Mapping[str, float | None]
    details: Mapping[str, Any]
    comparison: Mapping[str, Any] | None  # the adapter has none

    @property
    def heading(self) -> str:
        """The title where a text begins; a name that somebody gave keeps its spelling."""
        return self.title if self.title == self.name not in ("base", "adapter") else sentence_case(self.title)


@dataclass(frozen=True)
class ClassLine:
    """How well the adapter recognises a label, as in the report, and the F1 of its base."""

    label: str
    adapter: Mapping[str, Any]
    base_f1: float | None


@dataclass(frozen=True)
class RowList:
    """The rows of a task that the page lists, and what they can be filtered by."""

    rows: list[ListedRow]
    total: int
    kinds: dict[Kind, str]  # with at least one row each: kind -> text for people
    labels: list[str]
    instruction: str  # what every prompt begins with


@dataclass(frozen=True)
class TaskPage:
    """A task's part of the page."""

    sides: list[Side]
    is_binary: bool  # whether an answer is right or wrong, rather than more or less like the expected one
    verdict: str
    notes: list[str]
    bars: str
    guesses: dict[str, Mapping[str, float]]  # of answers that look at no row
    lines: dict[str, float]  # the same in the headline metric
    reliability: str
    calibrated: list[Side]
    labels: list[str]  # both axes of the matrices
    matrices: dict[str, list[list[Cell]]]  # by contestant; empty if the task has no labels, or too many
    confusions: list[Confusion]
    classes: list[ClassLine]
    listed: RowList


def eval_page(
    data: Mapping[str, Any],
    adapter: Adapter,
    rows: Mapping[str, Sequence[ScoredRow]],
    curve: LossCurve | None,
) -> str:
    """The page as HTML.

    Args:
        data: the contents of report.json.
        adapter: whose training the page tells of.
        rows: the evaluated rows by task.
        curve: the loss of the adapter's training, if it is known.
    """
    script, subject = read_script("report.js"), Subject(adapter)
    facts = data["tasks"]
    tasks = {name: _task_page(f"task-{place}", facts[name], rows[name]) for place, name in enumerate(facts, 1)}
    return ENVIRONMENT.get_template("report.html.jinja").render(
        report=data,
        subject=subject,
        licenses=sorted({str(source["license"]) for source in subject.sources}),
        parents=_further_parents(adapter),
        forgetting=data.get("forgetting"),
        remembers=_say_what_is_left(data["forgetting"]["ci95"]) if data.get("forgetting") else "",
        overlap=_overlap(facts.values()),
        others=_others(tasks.values()),
        tasks=tasks,
        curve=curve,
        loss=eval_plots.draw_loss("loss", curve) if curve else "",
        script=script,
        script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        metric_names=METRIC_NAMES,
        open_classes=OPEN_CLASSES,
        with_base=all(task["baseline"] == "base" for task in facts.values()),
        baselines=sorted({RIVALS[task["baseline"]] for task in facts.values()}),
        with_pairs=any(task["metric"] == "preference_accuracy" for task in facts.values()),
        with_mcnemar=any(
            each["mcnemar_p_value"] is not None for task in facts.values() for each in task["comparisons"].values()
        ),
        guesses={name for task in tasks.values() for name in task.guesses},
        columns=[
            name
            for name in PRINTED
            if any(side.scores.get(name) is not None for task in tasks.values() for side in task.sides)
        ],
        total=sum(task["n"] for task in facts.values()),
    )


def _further_parents(adapter: Adapter) -> dict[str, str]:
    """The fingerprints of what the adapter was trained on beside its base model and the evaluated corpus."""
    parents = adapter.manifest["parents"]
    names = {"corpus": "Trained on the corpus", "init_adapter": "Continued from", "replay": "Replayed rows"}
    return {
        title: str(parents[key]["fingerprint"]) for key, title in names.items() if "fingerprint" in parents.get(key, {})
    }


def _say_what_is_left(ci95: tuple[float, float]) -> str:
    """Whether the adapter has lost general ability, from the interval of the drop."""
    if ci95[0] > 0:
        return "The adapter has lost some of what its base could do."
    return "The adapter does better than its base." if ci95[1] < 0 else "Nothing measurable was lost."


def _overlap(tasks: Iterable[Mapping[str, Any]]) -> int | None:
    """How many evaluated rows the adapter was trained on, or None if nobody knows."""
    known = [task["train_overlap"] for task in tasks if task["train_overlap"] is not None]
    return sum(known) if known else None


def _others(tasks: Iterable[TaskPage]) -> list[str]:
    """Who took part beside base and adapter."""
    sides = [side for task in tasks for side in task.sides if side.name not in ("base", "adapter")]
    return list(dict.fromkeys(side.title for side in sides))


def _task_page(id_: str, task: Mapping[str, Any], rows: Sequence[ScoredRow]) -> TaskPage:
    metric, has_labels = task["metric"], task["majority"] is not None
    sides, is_binary = _sides(task), task["comparisons"]["base"]["mcnemar_p_value"] is not None
    compared = [side for side in sides if side.name == "adapter" or (side.name, task["baseline"]) == ("base", "base")]
    guesses = {name: scores for name, scores in task["guesses"].items() if name != task["baseline"]}
    lines = {name: scores[metric] for name, scores in guesses.items() if metric in scores}
    calibrated = [side for side in compared if side.details["calibration"]]
    labels = eval_confusions.labels_of(rows) if has_labels else []
    small = 0 < len(labels) <= MATRIX_LABELS
    headings = HEADINGS | {side.name: side.heading for side in sides}
    return TaskPage(
        sides=sides,
        is_binary=is_binary,
        verdict=verdict(task),
        notes=[*list_notes(task, headings), *list_scorings(task, headings)],
        bars=eval_plots.draw_bars(f"{id_}-bars", [_bar(side, metric) for side in sides], lines, METRIC_NAMES[metric]),
        guesses=guesses,
        lines=lines,
        reliability=eval_plots.draw_reliability(f"{id_}-bins", _bins(calibrated)) if calibrated else "",
        calibrated=calibrated,
        labels=[shorten(label, ANSWER_LENGTH) for label in labels] if small else [],
        matrices={side.name: eval_confusions.count_matrix(rows, labels, side.name) for side in compared}
        if small
        else {},
        confusions=eval_confusions.most_frequent(rows) if labels and not small else [],
        classes=_classes(compared),
        listed=_row_list(rows, is_binary=is_binary, has_labels=has_labels),
    )


def _sides(task: Mapping[str, Any]) -> list[Side]:
    """Every contestant, in the order of the report."""
    few_shot = {"few_shot": task["few_shot"]} if task["few_shot"] else {}
    scores = {"base": task["base"], **few_shot, **task["vs"], "adapter": task["adapter"]}
    titles = {"base": task["baseline"], **TITLES}
    return [
        Side(name, titles.get(name, name), values, task["details"][name], task["comparisons"].get(name))
        for name, values in scores.items()
    ]


def _bar(side: Side, metric: str) -> Bar:
    return Bar(side.title, side.scores[metric] or 0.0, side.details["ci95"], side.name == "adapter")


def _bins(sides: Sequence[Side]) -> dict[str, list[Bin]]:
    return {
        side.name: [
            Bin(each["confidence"], each["accuracy"], each["n"]) for each in side.details["calibration"]["bins"]
        ]
        for side in sides
    }


def _classes(sides: Sequence[Side]) -> list[ClassLine]:
    """A line per label that is expected or that the adapter gave, the most frequent first."""
    base, adapter = (sides[number].details["classes"] for number in (0, -1))
    base_f1 = {each["label"]: each["f1"] for each in base}
    used = sorted((each for each in adapter if each["expected"] or each["given"]), key=lambda each: -each["expected"])
    return [ClassLine(shorten(each["label"], ANSWER_LENGTH), each, base_f1.get(each["label"])) for each in used]


def _row_list(rows: Sequence[ScoredRow], *, is_binary: bool, has_labels: bool) -> RowList:
    instruction = shared_instruction(rows)
    listed = list_rows(rows, is_binary=is_binary, has_labels=has_labels, instruction=instruction)
    occurring = {kind for each in listed for kind in each.kinds}
    kinds = {kind: text for kind, text in (KINDS if is_binary else TEXT_KINDS).items() if kind in occurring}
    labels = sorted({each.label for each in listed}) if has_labels else []
    return RowList(
        listed, len(rows), kinds, labels if len(labels) <= FILTER_LABELS else [], shorten(instruction, PROMPT_LENGTH)
    )
