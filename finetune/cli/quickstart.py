"""The whole pipeline in one call: bundled sample → corpus → adapter → report → merged model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from finetune.cli.console import Progress
from finetune.cli.workspace import Workspace
from finetune.evaluate import EvalRequest, EvalResult, evaluate
from finetune.merge import MergeRequest, MergeResult, merge_adapter
from finetune.prepare import PrepareRequest, PrepareResult, prepare
from finetune.recipe import load_adapter_recipe
from finetune.train import TrainRequest, TrainResult, train

DOMAIN, TASK = "finance", "sentiment"
# Keep the run under ten minutes on two slow cores; to score labels would take two thirds of each evaluation.
SETTINGS = {"num_train_epochs": 2.25, "metric_for_best_model": "loss"}
RESUME = "slmtune quickstart, which starts from the beginning"


@dataclass(frozen=True)
class QuickstartResult:
    """The result of each stage."""

    prepare: PrepareResult
    train: TrainResult
    eval: EvalResult
    merge: MergeResult


def quickstart(workspace: Workspace, overrides: Mapping[str, Any], progress: Progress) -> QuickstartResult:
    """Run the pipeline on the news sentences of the finance sample, replacing earlier results."""
    recipe = load_adapter_recipe(DOMAIN, overrides={**SETTINGS, **overrides})
    corpus, adapter = workspace.corpus, workspace.adapter
    progress.stage("prepare: the bundled finance news sentences")
    prepared = prepare(PrepareRequest(corpus, DOMAIN, overwrite=True, sample=True, tasks=(TASK,)))
    progress.stage(f"train: QLoRA on {recipe.model}")
    trained = train(TrainRequest(corpus, adapter, recipe, overwrite=True, resume_command=RESUME), progress.step)
    progress.stage("eval: base and adapter on the held-out test split")
    # Without the probe for forgetting, to stay quick.
    request = EvalRequest(adapter, corpus, workspace.eval, overwrite=True, resume_command=RESUME, forgetting=False)
    evaluated = evaluate(request, progress.rows)
    progress.stage("merge: adapter into the base weights, verified")
    merged = merge_adapter(MergeRequest(adapter, workspace.model, corpus, overwrite=True))
    return QuickstartResult(prepared, trained, evaluated, merged)
