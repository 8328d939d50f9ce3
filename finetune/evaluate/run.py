"""Adapter + Corpus → EvalReport: base and adapter side by side, with the same prompts, decoding and scoring."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from finetune.artifacts import (
    Adapter,
    ArtifactWriter,
    Corpus,
    EvalReport,
    ensure_replaceable,
    write_json,
    write_jsonl,
    writing,
)
from finetune.cards.eval_page import Answer, ScoredRow, eval_page
from finetune.cards.eval_report import eval_report
from finetune.cards.loss_curve import read_loss_curve
from finetune.evaluate import significance
from finetune.evaluate.request import EvalRequest, EvalResult, ProgressCallback, TaskScore
from finetune.machine import peak_bytes
from finetune.models.chat_template import require_tools
from finetune.models.find import base_of
from finetune.models.load import LoadedModel, load_adapter
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe.options import check
from finetune.records import Message
from finetune.scoring import answers as answering
from finetune.scoring import metrics
from finetune.scoring.tasks import EvalTask, tasks_of


@dataclass(frozen=True)
class Answers:
    """A model's answers to the rows of a task, in order, with the probability of each choice if there are choices."""

    texts: list[str]
    probabilities: list[dict[str, float]]


def evaluate(request: EvalRequest, on_progress: ProgressCallback | None = None) -> EvalResult:
    """Score base and adapter on held-out rows and write report.json, report.html and samples.jsonl."""
    started = time.monotonic()
    check(request)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    adapter = Adapter.open(request.adapter, command=request.train_command)
    corpus = Corpus.open(request.corpus, command=request.prepare_command)
    tasks = tasks_of(corpus, request.split, request.tasks, request.limit)
    _require_tools(adapter, request, tasks)
    loaded = load_adapter(adapter, request.model)
    tasks = [
        replace(task, examples=tuple(answering.spell_calls(loaded, row) for row in task.examples)) for task in tasks
    ]
    with writing(request.output_dir, EvalReport, overwrite=request.overwrite) as writer:
        scores: dict[str, TaskScore] = {}
        samples: list[dict[str, Any]] = []
        rows: dict[str, list[ScoredRow]] = {}
        for task in tasks:
            answers = {name: _answer(loaded, task, name, request, on_progress) for name in ("base", "adapter")}
            rows[task.name] = score_rows(task, answers["base"], answers["adapter"])
            scores[task.name] = _score(task, rows[task.name])
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
    loaded: LoadedModel, task: EvalTask, name: str, request: EvalRequest, on_progress: ProgressCallback | None
) -> Answers:
    done = 0

    def on_rows(rows: int) -> None:
        nonlocal done
        done += rows
        if on_progress:
            on_progress(task.name, name, done, len(task.examples))

    with loaded.model.disable_adapter() if name == "base" else contextlib.nullcontext():
        if task.metric == "token_f1":
            texts = answering.generate(
                loaded,
                task.examples,
                batch_size=request.batch_size,
                max_new_tokens=request.max_new_tokens,
                on_rows=on_rows,
            )
            return Answers(texts, [])
        rows = answering.label_logprobs(loaded, task.examples, batch_size=request.batch_size, on_rows=on_rows)
    return pick_labels(task, rows)


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


def score_rows(task: EvalTask, base: Answers, adapter: Answers) -> list[ScoredRow]:
    """Each row with both answers and their scores: 1 or 0 for a label, token F1 for a text."""
    rows = []
    for number, example in enumerate(task.examples):
        reference = example.label or example.answer
        both = _score_answer(task, base, number, reference), _score_answer(task, adapter, number, reference)
        chances = adapter.probabilities[number] if adapter.probabilities else {}
        margin = chances.get(both[1].text, 0.0) - chances.get(reference, 0.0)
        instruction = "\n\n".join(message.content for message in example.prompt if message.role == "system")
        prompt = _turns(example.prompt)
        rows.append(ScoredRow(example.id, instruction, prompt, reference, *both, example.choices, margin))
    return rows


def _score_answer(task: EvalTask, answers: Answers, number: int, reference: str) -> Answer:
    text = answers.texts[number]
    if task.metric == "token_f1":
        return Answer(text, metrics.token_f1(reference, text))
    return Answer(text, float(text == reference), answers.probabilities[number][text])


def _turns(prompt: Sequence[Message]) -> str:
    """The turns of a conversation as text, each with its role if there are several."""
    turns = [message for message in prompt if message.role != "system"]
    return "\n\n".join(turn.text if len(turns) == 1 else f"{turn.role}: {turn.text}" for turn in turns)


def _score(task: EvalTask, rows: Sequence[ScoredRow]) -> TaskScore:
    base, adapter = [row.base for row in rows], [row.adapter for row in rows]
    if task.metric == "token_f1":
        comparison = significance.compare_means([row.score for row in base], [row.score for row in adapter])
        means = [{"token_f1": sum(row.score for row in model) / len(model)} for model in (base, adapter)]
        majority = None
    else:
        labels = [row.reference for row in rows]
        given = [row.text for row in base], [row.text for row in adapter]
        comparison = significance.compare_labels(labels, *given)
        means = [metrics.classification_scores(labels, texts) for texts in given]
        majority = metrics.majority(labels)
    return TaskScore(
        n=len(rows),
        metric=task.metric,
        majority=majority.scores["accuracy"] if majority else None,
        majority_label=majority.label if majority else None,
        base=means[0],
        adapter=means[1],
        delta=comparison.delta,
        ci95=comparison.ci95,
        p_value=comparison.p_value,
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
