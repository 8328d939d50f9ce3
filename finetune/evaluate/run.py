"""Adapter + Corpus → EvalReport: base, adapter and others side by side, with the same prompts, decoding and scoring.

The base of an encoder has no head, so its adapter is compared with a baseline instead.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.artifacts import Adapter, Corpus, EvalReport, ensure_replaceable, writing
from finetune.cards.scored_rows import ScoredRow
from finetune.corpus.open import open_corpus
from finetune.errors import InputError
from finetune.evaluate.answers import Answers
from finetune.evaluate.ask import StageCallback, ask_all, takes_part
from finetune.evaluate.contestants.baseline import BASELINES
from finetune.evaluate.contestants.lineup import Group, line_up, report_order
from finetune.evaluate.contestants.rivals import open_rivals
from finetune.evaluate.eval_sets import open_tasks
from finetune.evaluate.forgetting.measure import measure_forgetting
from finetune.evaluate.forgetting.probe import probe_tasks
from finetune.evaluate.gate import Condition, read_gate
from finetune.evaluate.overlap import Seen, add_overlap, find_seen
from finetune.evaluate.progress import ProgressCallback
from finetune.evaluate.request import HARNESS, EvalRequest, EvalResult, TaskScore
from finetune.evaluate.score import score_rows, score_task
from finetune.evaluate.store import keep_answers
from finetune.evaluate.tracked_figures import tracked_config, tracked_figures
from finetune.evaluate.write import write_report, write_samples
from finetune.machine import peak_bytes
from finetune.models.chat_template import require_tools
from finetune.models.find import base_of
from finetune.models.heads import Head
from finetune.models.tokenizer import load_tokenizer
from finetune.recipe.option_fields import check
from finetune.scoring.generation import spell_calls
from finetune.scoring.tasks import EvalTask
from finetune.scoring.texts import require_libraries
from finetune.trackers.tracked_run import open_run, require_tracker
from finetune.workers import require_devices


@dataclass(frozen=True)
class _Inputs:
    """What an evaluation needs, checked before any weights are loaded."""

    adapter: Adapter
    corpus: Corpus | None
    head: Head | None
    tasks: Sequence[EvalTask]
    origins: Mapping[str, Any]  # of the rows, for the manifest
    probe: Sequence[EvalTask]  # of what the adapter may have forgotten
    foreign: Mapping[str, Any]  # tasks of lm-evaluation-harness
    seen: Seen | None
    conditions: Sequence[Condition]
    groups: Sequence[Group]
    order: Sequence[str]  # of the contestants in the report

    @property
    def sources(self) -> tuple[str, str]:
        """The fingerprints of adapter and corpus."""
        return self.adapter.fingerprint, self.corpus.fingerprint if self.corpus else ""

    @property
    def answer_sets(self) -> int:
        """How many contestants answer tasks, counted once per task."""
        names = [name for group in self.groups for name in group.members]
        own = sum(takes_part(name, task) for task in (*self.tasks, *self.probe) for name in names)
        return own + 2 * len(self.foreign)


def evaluate(
    request: EvalRequest, on_progress: ProgressCallback | None = None, on_stage: StageCallback | None = None
) -> EvalResult:
    """Score base and adapter on held-out rows and write report.json, report.html and samples.jsonl.

    If the evaluation is interrupted, the answers so far are kept, and the next one with the same inputs takes them over. A
    script that asks for several workers must call this below `if __name__ == "__main__":`.
    """
    started = time.monotonic()
    check(request)
    require_devices("--workers", request.workers)
    require_tracker(request.report_to)
    ensure_replaceable(request.output_dir, overwrite=request.overwrite)
    inputs = _open_inputs(request)
    adapter, corpus, tasks = inputs.adapter, inputs.corpus, inputs.tasks
    with (
        open_run(tracked_config(request, adapter, corpus, tasks), request.output_dir.parent) as run,
        keep_answers(request, inputs.sources, inputs.answer_sets) as store,
        writing(request.output_dir, EvalReport, overwrite=request.overwrite) as writer,
    ):
        asked = ask_all(inputs.groups, [*tasks, *inputs.probe], store, on_progress, on_stage, request.workers)
        answers = {
            task: {name: given[name] for name in inputs.order if name in given} for task, given in asked.answers.items()
        }
        scores, rows = _score_tasks(inputs, answers, asked.absent)
        if inputs.foreign:
            from finetune.evaluate.harness import score_tasks

            harness = score_tasks(inputs.foreign, request, adapter, store, on_stage)
            scores |= {name: one.score for name, one in harness.items()}
            rows |= {name: one.rows for name, one in harness.items()}
        forgetting = measure_forgetting(inputs.probe, answers) if inputs.probe else None
        result = EvalResult(
            request.output_dir / "report.html",
            scores,
            time.monotonic() - started,
            max(peak_bytes(), asked.peak),
            tuple(condition.check(scores, forgetting) for condition in inputs.conditions),
            forgetting,
        )
        writer.manifest["eval_sets"] = inputs.origins
        write_report(writer, request, adapter, corpus, result, rows)
        write_samples(writer.folder / "samples.jsonl", tasks, answers, rows, scores)
        run.finish(tracked_figures(result))
    return result


def _open_inputs(request: EvalRequest) -> _Inputs:
    """Open adapter, rivals, rows and conditions of a request; whatever is wrong with them shows here."""
    adapter = Adapter.open(request.adapter, command=request.train_command)
    rivals = open_rivals(request)
    corpus = open_corpus(request.corpus, command=request.prepare_command) if request.corpus else None
    head = Head.of_manifest(adapter.manifest)
    sets = open_tasks(request, adapter, corpus, head)
    tasks: Sequence[EvalTask] = sets.tasks
    seen = find_seen(adapter, corpus, tasks, allowed=request.allow_train_overlap)
    require_libraries({task.metric for task in tasks})
    probe = probe_tasks() if request.forgetting and head is None else []
    if head is None:
        tasks = _spell_calls(tasks, adapter, request)
    foreign = _open_harness(request, head)
    return _Inputs(
        adapter=adapter,
        corpus=corpus,
        head=head,
        tasks=tasks,
        origins=sets.origins,
        probe=probe,
        foreign=foreign,
        seen=seen,
        conditions=read_gate(request.gate, tasks, [HARNESS + name for name in foreign], with_forgetting=bool(probe)),
        groups=line_up(request, adapter, corpus, tasks, rivals),
        order=report_order(rivals),
    )


def _score_tasks(
    inputs: _Inputs, answers: Mapping[str, Mapping[str, Answers]], absent: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, TaskScore], dict[str, Sequence[ScoredRow]]]:
    """The figures of the tasks, and their rows."""
    rows: dict[str, Sequence[ScoredRow]] = {task.name: score_rows(task, answers[task.name]) for task in inputs.tasks}
    scores = {
        task.name: _score(task, answers[task.name], rows[task.name], absent[task.name], inputs.head, inputs.seen)
        for task in inputs.tasks
    }
    return scores, rows


def _open_harness(request: EvalRequest, head: Head | None) -> Mapping[str, Any]:
    """The tasks of lm-evaluation-harness, with their rows; nothing of it is imported if there are none."""
    if not request.lm_eval:
        return {}
    if head is not None:
        raise InputError("--lm-eval asks language models, and the base of this adapter is an encoder. Leave it out")
    from finetune.evaluate import harness

    return harness.open_tasks(request.lm_eval)


def _score(
    task: EvalTask,
    answers: Mapping[str, Answers],
    rows: Sequence[ScoredRow],
    absent: Mapping[str, str],
    head: Head | None,
    seen: Seen | None,
) -> TaskScore:
    """The figures of a task and, if the adapter was trained on some of its rows, those without these."""
    baseline = BASELINES[task.metric] if head else "base"

    def score(part: EvalTask, given: Mapping[str, Answers]) -> TaskScore:
        return score_task(part, score_rows(part, given), given, baseline, absent)

    return add_overlap(score_task(task, rows, answers, baseline, absent), task, answers, seen, score)


def _spell_calls(tasks: Sequence[EvalTask], adapter: Adapter, request: EvalRequest) -> list[EvalTask]:
    """The tasks with expected tool calls as text; the chat template must render the tools of all rows that use some."""
    if not any(row.uses_tools for task in tasks for row in task.examples):
        return list(tasks)
    tokenizer = load_tokenizer(adapter.path, base_of(adapter, request.model))
    for task in tasks:
        for row in task.examples:
            if row.uses_tools:
                require_tools(tokenizer, row)
    return [replace(task, examples=tuple(spell_calls(tokenizer, row) for row in task.examples)) for task in tasks]
