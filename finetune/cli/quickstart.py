"""The main job in one call: bundled sample → corpus → adapter → report → merged model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from finetune.cli.workspace import Workspace
from finetune.recipe import load_adapter_recipe

if TYPE_CHECKING:
    from finetune.evaluate import EvalResult
    from finetune.merge import MergeResult
    from finetune.prepare import PrepareResult
    from finetune.train import Step, TrainResult

DOMAIN, TASK = "finance", "sentiment"
EPOCHS = 1.5  # so that the whole takes less than ten minutes on two slow cores


@dataclass(frozen=True)
class QuickstartResult:
    """What each stage answered."""

    prepare: PrepareResult
    train: TrainResult
    eval: EvalResult
    merge: MergeResult


def quickstart(
    workspace: Workspace,
    *,
    overrides: dict[str, Any],
    on_stage: Callable[[str], None],
    on_step: Callable[[Step], None] | None = None,
    on_progress: Callable[[str, str, int, int], None] | None = None,
) -> QuickstartResult:
    """Run the pipeline on the finance sample's news sentences; earlier results of it are replaced."""
    on_stage("prepare: the bundled finance news sentences")
    from finetune.prepare import PrepareRequest, prepare

    prepared = prepare(PrepareRequest(workspace.corpus, domain=DOMAIN, sample=True, tasks=(TASK,), overwrite=True))
    recipe = load_adapter_recipe(DOMAIN, overrides={"num_train_epochs": EPOCHS} | overrides)
    on_stage(f"train: QLoRA on {recipe.model}")
    from finetune.train import TrainRequest, train

    again = "slmtune quickstart, which starts from the beginning"
    request = TrainRequest(workspace.corpus, workspace.adapter, recipe, overwrite=True, resume_command=again)
    trained = train(request, on_step)
    on_stage("eval: base and adapter on the held-out test split")
    from finetune.evaluate import EvalRequest, evaluate

    evaluated = evaluate(EvalRequest(workspace.adapter, workspace.corpus, workspace.eval, overwrite=True), on_progress)
    on_stage("merge: adapter into the base weights, verified")
    from finetune.merge import MergeRequest, merge_adapter

    merged = merge_adapter(MergeRequest(workspace.adapter, workspace.model, workspace.corpus, overwrite=True))
    return QuickstartResult(prepared, trained, evaluated, merged)
