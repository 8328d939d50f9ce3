"""Adapter + Corpus → EvalReport: base and adapter side by side, with the same prompts, decoding and scoring.

The base of an encoder has no head, so its adapter is compared with a baseline instead.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from finetune.artifacts import (
    Adapter,
    ArtifactWriter,
    Corpus,
    EvalReport,
    ensure_replaceable,
    library_versions,
    write_json,
    write_jsonl,
    writing,
)
from finetune.cards.eval_page import ScoredRow, eval_page
from finetune.cards.eval_report import eval_report
from finetune.cards.loss_curve import read_loss_curve
from finetune.evaluate.answers import BASELINES, Answers, ask_baseline, ask_encoder, ask_model, require_rows
from finetune.evaluate.request import EvalRequest, EvalResult, ProgressCallback, TaskScore
from finetune.evaluate.score import score_rows, score_task
from finetune.machine import peak_bytes
from finetune.models.chat_template import require_tools
from finetune.models.find import base_of
from finetune.models.heads import Head
from finetune.models.load import LoadedModel, load_adapter
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import check
from finetune.scoring import answers as answering
from finetune.scoring.tasks import EvalTask, tasks_of
from finetune.scoring.texts import require_libraries


def evaluate(request: EvalRequest, on_progress: ProgressCallback | None = None) -> EvalResult:
    """Score base and adapter on held-out rows and write report.json, report.html and samples.jsonl."""
    started = time.monotonic()
    check(request)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapter = Adapter.open(request.adapter, command=request.train_command)
    corpus = Corpus.open(request.corpus, command=request.prepare_command)
    head = Head.of_manifest(adapter.manifest)
    tasks = tasks_of(corpus, request.split, request.tasks, request.limit, head.kind if head else None)
    require_libraries({task.metric for task in tasks})
    if head is not None:
        require_rows(head, tasks, request.split)
        loaded = load_adapter(adapter, request.model)
    else:
        _require_tools(adapter, request, tasks)
        loaded = load_adapter(adapter, request.model)
        tasks = [
            replace(task, examples=tuple(answering.spell_calls(loaded, row) for row in task.examples)) for task in tasks
        ]
    max_length = min(AdapterRecipe.model_validate(adapter.config).max_length, loaded.context)
    with writing(request.output_dir, EvalReport, overwrite=request.overwrite) as writer:
        scores: dict[str, TaskScore] = {}
        samples: list[dict[str, Any]] = []
        rows: dict[str, list[ScoredRow]] = {}
        for task in tasks:
            answers = {
                name: _answer(loaded, task, name, request, max_length, on_progress) for name in ("base", "adapter")
            }
            rows[task.name] = score_rows(task, answers["base"], answers["adapter"])
            baseline = "base" if head is None else BASELINES[task.metric]
            scores[task.name] = score_task(task, rows[task.name], answers["base"], answers["adapter"], baseline)
            samples += _samples(task, answers)
        result = EvalResult(request.output_dir / "report.html", scores, time.monotonic() - started, peak_bytes())
        _write(writer, request, adapter, corpus, result, rows)
        write_jsonl(writer.folder / "samples.jsonl", samples)
    return result


def _require_tools(adapter: Adapter, request: EvalRequest, tasks: Sequence[EvalTask]) -> None:
    """Require, before weights are loaded, that the chat template renders the tools of all rows that use some."""
    rows = [row for task in tasks for row in task.examples if row.uses_tools]
    if rows:
        tokenizer = load_tokenizer(adapter.path, base_of(adapter, request.model))
        for row in rows:
            require_tools(tokenizer, row)


def _answer(
    loaded: LoadedModel,
    task: EvalTask,
    name: str,
    request: EvalRequest,
    max_length: int,
    on_progress: ProgressCallback | None,
) -> Answers:
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        if on_progress:
            on_progress(task.name, name, done, len(task.examples))

    if loaded.head is not None:
        if name == "base":
            return ask_baseline(task)
        return ask_encoder(loaded, task, batch_size=request.batch_size, max_length=max_length, on_rows=on_rows)
    with loaded.model.disable_adapter() if name == "base" else contextlib.nullcontext():
        return ask_model(
            loaded, task, batch_size=request.batch_size, max_new_tokens=request.max_new_tokens, on_rows=on_rows
        )


def _samples(task: EvalTask, answers: dict[str, Answers]) -> list[dict[str, Any]]:
    samples = []
    for number, example in enumerate(task.examples):
        sample: dict[str, Any] = {"task": task.name, "id": example.id, "reference": example.label or example.answer}
        for name, of_model in answers.items():
            sample[name] = of_model.texts[number]
            if of_model.probabilities:
                sample[f"{name}_probabilities"] = of_model.probabilities[number]
        samples.append(sample)
    return samples


def _write(
    writer: ArtifactWriter,
    request: EvalRequest,
    adapter: Adapter,
    corpus: Corpus,
    result: EvalResult,
    rows: Mapping[str, Sequence[ScoredRow]],
) -> None:
    scorers = require_libraries(score.metric for score in result.tasks.values())
    writer.manifest["libraries"] |= library_versions(scorers)
    writer.manifest["config"] = {
        "split": request.split,
        "tasks": sorted(result.tasks),
        "limit": request.limit,
        "max_new_tokens": request.max_new_tokens,
    }
    writer.manifest["parents"] = {
        "adapter": {"fingerprint": adapter.fingerprint},
        "corpus": {"fingerprint": corpus.fingerprint, "domain": corpus.manifest.get("domain")},
        "base_model": adapter.manifest["parents"]["base_model"],
    }
    data = eval_report(
        {name: asdict(score) for name, score in result.tasks.items()},
        writer.manifest,
        result.seconds,
        result.peak_memory_bytes,
    )
    write_json(writer.folder / "report.json", data)
    page = eval_page(data, adapter.manifest, rows, read_loss_curve(adapter.path))
    (writer.folder / "report.html").write_text(page, "utf-8")
