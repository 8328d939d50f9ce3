"""What an experiment tracker logs of an evaluation: where it comes from and its figures, never the text of a row."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from finetune.artifacts import Adapter, Corpus
from finetune.evaluate.request import EvalRequest, EvalResult, TaskScore
from finetune.scoring.tasks import EvalTask

UNUSUAL = re.compile(r"[^\w./-]")  # what MLflow does not take in a name


def tracked_config(
    request: EvalRequest, adapter: Adapter, corpus: Corpus | None, tasks: Sequence[EvalTask]
) -> dict[str, Any]:
    """The settings of an evaluation, and the fingerprints of what is evaluated on what."""
    return {
        "report_to": request.report_to,
        "split": request.split,
        "tasks": ", ".join(task.name for task in tasks),
        "rows": sum(len(task.examples) for task in tasks),
        "max_new_tokens": request.max_new_tokens,
        "model": adapter.manifest["parents"]["base_model"]["name"],
        "adapter": adapter.fingerprint,
        **({"corpus": corpus.fingerprint, "domain": str(corpus.manifest.get("domain"))} if corpus else {}),
    }


def tracked_figures(result: EvalResult) -> dict[str, float]:
    """The figures of the report, named TASK/CONTESTANT/METRIC and TASK/FIGURE."""
    figures = {"seconds": result.seconds, "peak_memory_bytes": float(result.peak_memory_bytes)}
    if result.forgetting:
        figures |= {"forgetting": result.forgetting.drop, "perplexity_ratio": result.forgetting.perplexity.ratio}
    for name, task in result.tasks.items():
        figures |= {UNUSUAL.sub("_", f"{name}/{key}"): value for key, value in _task_figures(task)}
    return figures


def _task_figures(task: TaskScore) -> Iterator[tuple[str, float]]:
    yield "rows", task.n
    for name, scores in (*task.scores.items(), *task.guesses.items()):
        yield from ((f"{name}/{metric}", value) for metric, value in scores.items() if value is not None)
    for name, details in task.details.items():
        yield from ((f"{name}/ci95_{end}", bound) for end, bound in zip(("low", "high"), details.ci95, strict=True))
        if details.calibration:
            yield f"{name}/ece", details.calibration.ece
    for name, comparison in task.comparisons.items():
        key = "delta" if name == "base" else f"{name}/delta"
        yield key, comparison.delta
        yield from ((f"{key}_{end}", bound) for end, bound in zip(("low", "high"), comparison.ci95, strict=True))
        yield f"{key.removesuffix('delta')}p_value", comparison.p_value
