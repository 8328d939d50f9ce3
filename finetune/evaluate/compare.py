"""EvalReports side by side: what each adapter scores, and whether the differences are more than chance."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from finetune.artifacts import MANIFEST, EvalReport
from finetune.errors import ArtifactError, InputError
from finetune.evaluate.details import Interval
from finetune.evaluate.request import Comparison
from finetune.evaluate.significance import Scorer, compare_pair, label_sets_scorer, labels_scorer, means_scorer

REPORT, SAMPLES = "report.json", "samples.jsonl"
Sameness = Literal["same", "other", "unknown"]


class Details(BaseModel):
    """What a comparison reads of the details of a contestant."""

    ci95: Interval


class TaskFigures(BaseModel):
    """What a comparison reads of a task in report.json."""

    n: int
    metric: str
    adapter: Mapping[str, float | None]
    details: Mapping[str, Details] = Field(default_factory=dict)
    rows_hash: str | None = None


class Drop(BaseModel):
    """What a comparison reads of the forgetting in report.json."""

    n: int
    base: float
    adapter: float
    drop: float
    ci95: Interval


class Report(BaseModel):
    """What a comparison reads of report.json."""

    tasks: Mapping[str, TaskFigures]
    forgetting: Drop | None = None


class Sample(BaseModel):
    """A line of samples.jsonl: a row with what is expected and what the adapter answered."""

    task: str
    id: str
    reference: str
    adapter: str
    adapter_score: float
    reference_labels: tuple[str, ...] = ()
    adapter_labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Figure:
    """The adapter's headline figure in one report, with its 95 % interval if the report has one."""

    n: int
    value: float
    ci95: Interval | None


@dataclass(frozen=True)
class TaskComparison:
    """One task in several reports; `differences` are each report minus the first one, where both answered the same rows.

    `rows` says whether all reports with the task are about the same rows; if they are not, their figures cannot be compared.
    """

    metric: str
    rows: Sameness
    figures: Mapping[str, Figure]
    differences: Mapping[str, Comparison]


@dataclass(frozen=True)
class CompareResult:
    """Several reports side by side; `forgetting` is that of each report in which it was measured."""

    reports: Mapping[str, Path]
    tasks: Mapping[str, TaskComparison]
    forgetting: Mapping[str, Drop]


def compare_reports(reports: Mapping[str, Path]) -> CompareResult:
    """Compare the adapters of evaluations by name; the first report is what the others are compared with.

    Args:
        reports: folders of evaluations, workspaces that contain one, or files report.json.

    Raises:
        InputError: a path is no report, or the reports have no task and metric in common.
    """
    places = {name: _find_report(path) for name, path in reports.items()}
    figures = {name: _read_report(path) for name, path in places.items()}
    metrics = {task: each.metric for report in figures.values() for task, each in report.tasks.items()}
    shared = {task for task in metrics if sum(task in report.tasks for report in figures.values()) > 1}
    if not shared:
        known = "; ".join(f"{name}: {', '.join(report.tasks)}" for name, report in figures.items())
        raise InputError(f"These reports have no task in common ({known}). Evaluate the adapters on the same corpus")
    samples = {name: _read_samples(path) for name, path in places.items()}
    tasks = {task: _compare_task(task, figures, samples) for task in metrics if task in shared}
    forgetting = {name: report.forgetting for name, report in figures.items() if report.forgetting}
    return CompareResult(places, tasks, forgetting)


def name_reports(paths: Sequence[str]) -> dict[str, Path]:
    """Paths by the shortest name that tells them apart; NAME=PATH gives a name.

    Raises:
        InputError: there is only one, or a name or a path is given twice.
    """
    if len(paths) < 2:
        raise InputError("A comparison needs a second report. Write: slmtune compare REPORT REPORT")
    named = [
        (name if separator else "", Path(path if separator else name))
        for name, separator, path in (text.partition("=") for text in paths)
    ]
    places = [path.absolute().parts[: -1 if path.name == REPORT else None] for _, path in named]
    reports: dict[str, Path] = {}
    for (name, path), parts in zip(named, places, strict=True):
        if places.count(parts) > 1:
            raise InputError(f"{path} is given twice. Compare a report with another one")
        length = next(n for n in range(1, len(parts) + 1) if sum(other[-n:] == parts[-n:] for other in places) == 1)
        name = name or "/".join(parts[-length:])
        if name in reports:
            raise InputError(f"Two reports are called {name}. Give another name with NAME=PATH")
        reports[name] = path
    return reports


def _find_report(path: Path) -> Path:
    """The file report.json, verified if its folder is complete."""
    folder = path.parent if path.name == REPORT else path
    if not (folder / REPORT).is_file() and (folder / "eval" / REPORT).is_file():
        folder = folder / "eval"  # of a workspace
    if not (folder / REPORT).is_file():
        raise InputError(f"There is no {REPORT} at {path}. Give the folder of an evaluation: slmtune eval makes one")
    if (folder / MANIFEST).is_file():
        EvalReport.open(folder)
    return folder / REPORT


def _read_report(path: Path) -> Report:
    try:
        return Report.model_validate_json(path.read_bytes())
    except ValidationError as error:
        place = ".".join(map(str, error.errors()[0]["loc"])) or "the file"
        raise ArtifactError(f"{path} is no report of slmtune eval: {place} cannot be read. Evaluate again") from None


def _read_samples(path: Path) -> dict[str, dict[str, Sample]]:
    """The samples beside a report by task and row; empty if there are none, or those of an earlier version."""
    try:
        lines = path.with_name(SAMPLES).read_text("utf-8").splitlines()
        rows = TypeAdapter(list[Sample]).validate_python([json.loads(line) for line in lines])
    except (OSError, ValueError):
        return {}
    samples: dict[str, dict[str, Sample]] = {}
    for row in rows:
        samples.setdefault(row.task, {})[row.id] = row
    return samples


def _compare_task(
    task: str, reports: Mapping[str, Report], samples: Mapping[str, Mapping[str, Mapping[str, Sample]]]
) -> TaskComparison:
    entries = {name: report.tasks[task] for name, report in reports.items() if task in report.tasks}
    first, *others = entries
    metric = entries[first].metric
    comparable = {name: one for name, one in entries.items() if one.metric == metric}
    answers = {name: samples[name].get(task, {}) for name in comparable}
    differences = {}
    for name in others:
        if name in comparable and _same_rows(entries[first], entries[name]) == "same":
            score = _score(metric, answers[first], answers[name])
            if score is not None:
                differences[name] = compare_pair(score, len(answers[first]))
    same = {_same_rows(entries[first], one) for one in comparable.values()}
    rows: Sameness = "other" if "other" in same else "unknown" if "unknown" in same else "same"
    figures = {
        name: Figure(one.n, float(one.adapter[metric] or 0), one.details["adapter"].ci95 if one.details else None)
        for name, one in comparable.items()
    }
    return TaskComparison(metric, rows, figures, differences)


def _same_rows(one: TaskFigures, other: TaskFigures) -> Sameness:
    if one.n != other.n:
        return "other"
    if not one.rows_hash or not other.rows_hash:
        return "unknown"
    return "same" if one.rows_hash == other.rows_hash else "other"


def _score(metric: str, one: Mapping[str, Sample], other: Mapping[str, Sample]) -> Scorer | None:
    """What resamples the answers to the same rows; None without samples of both."""
    if not one or one.keys() != other.keys():
        return None
    first, second = list(one.values()), [other[row] for row in one]
    if metric == "weighted_f1":
        return labels_scorer(
            [row.reference for row in first], [[row.adapter for row in rows] for rows in (first, second)]
        )
    if metric == "micro_f1":
        truth = [row.reference_labels for row in first]
        return label_sets_scorer(truth, [[row.adapter_labels for row in rows] for rows in (first, second)])
    return means_scorer([[row.adapter_score for row in rows] for rows in (first, second)])
