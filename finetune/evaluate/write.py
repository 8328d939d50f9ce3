"""Writes the files of an evaluation: the report for programs and for people, and the rows with all answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from finetune.artifacts import Adapter, ArtifactWriter, Corpus, library_versions, write_json, write_jsonl
from finetune.cards.eval_page import eval_page
from finetune.cards.eval_report import eval_report
from finetune.cards.loss_curve import read_loss_curve
from finetune.cards.scored_rows import ScoredRow
from finetune.evaluate.ask import AllAnswers
from finetune.evaluate.request import EvalRequest, EvalResult, TaskScore
from finetune.scoring.tasks import EvalTask, reference_labels
from finetune.scoring.texts import require_libraries


def write_report(
    writer: ArtifactWriter,
    request: EvalRequest,
    adapter: Adapter,
    corpus: Corpus | None,
    result: EvalResult,
    rows: Mapping[str, Sequence[ScoredRow]],
) -> None:
    """Write the manifest's part about the evaluation, report.json and report.html."""
    scorers = require_libraries(score.metric for score in result.tasks.values())
    writer.manifest["libraries"] |= library_versions([*scorers, *(["lm_eval"] if request.lm_eval else [])])
    writer.manifest["config"] = {
        "split": request.split,
        "tasks": sorted(result.tasks),
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
        "few_shot": request.few_shot,
    }
    writer.manifest["parents"] = {
        "adapter": {"fingerprint": adapter.fingerprint},
        "corpus": {
            "fingerprint": corpus.fingerprint if corpus else "",
            "domain": corpus.manifest.get("domain") if corpus else request.domain,
        },
        "base_model": adapter.manifest["parents"]["base_model"],
    }
    data = eval_report(asdict(result), writer.manifest)
    write_json(writer.folder / "report.json", data)
    page = eval_page(data, adapter, rows, read_loss_curve(adapter.path))
    (writer.folder / "report.html").write_text(page, "utf-8")


def write_samples(
    path: Path,
    tasks: Sequence[EvalTask],
    answers: AllAnswers,
    rows: Mapping[str, Sequence[ScoredRow]],
    scores: Mapping[str, TaskScore],
) -> None:
    """Write one line per row: what is expected, and the answers of every contestant with their scores."""
    write_jsonl(path, [*_samples(tasks, answers, rows), *_foreign_samples(rows, scores)])


def _samples(
    tasks: Sequence[EvalTask], answers: AllAnswers, rows: Mapping[str, Sequence[ScoredRow]]
) -> list[dict[str, Any]]:
    """One line per row: what is expected, and the answers of every contestant with their scores."""
    samples = []
    for task in tasks:
        for number, example in enumerate(task.examples):
            sample: dict[str, Any] = {"task": task.name, "id": example.id, "reference": example.label or example.answer}
            if task.metric == "micro_f1":
                sample["reference_labels"] = reference_labels(example)
            for name, given in answers[task.name].items():
                sample[name] = given.texts[number]
                sample[f"{name}_score"] = rows[task.name][number].answers[name].score
                if given.labels:
                    sample[f"{name}_labels"] = given.labels[number]
                if given.probabilities:
                    sample[f"{name}_probabilities"] = given.probabilities[number]
            samples.append(sample)
    return samples


def _foreign_samples(rows: Mapping[str, Sequence[ScoredRow]], scores: Mapping[str, TaskScore]) -> list[dict[str, Any]]:
    """The rows of tasks that another program scored."""
    return [
        {"task": task, "id": row.id, "reference": row.reference}
        | {name: answer.text for name, answer in row.answers.items()}
        | {f"{name}_score": answer.score for name, answer in row.answers.items()}
        for task in rows
        if scores[task].scorer
        for row in rows[task]
    ]
