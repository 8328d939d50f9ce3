"""One trial of a sweep: a training with its settings, which is stopped early if it falls behind."""

from __future__ import annotations

import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.trial import Trial

from finetune.artifacts import Corpus
from finetune.errors import InputError, MemoryFullError, PrunedError, TrainingDivergedError
from finetune.recipe import AdapterRecipe
from finetune.sweep.request import Setting, SweepRequest
from finetune.sweep.space import Space, change
from finetune.sweep.trials import Trials
from finetune.train import Step, TrainPlan, TrainRequest, TrainResult, train
from finetune.train.checkpoints.checkpoint import folder_of, list_checkpoints

EVALUATIONS = 5  # per run, so that runs of any length are compared after the same shares of their steps
OnStep = Callable[[int, Step], None]  # with the number of the trial


@dataclass(frozen=True)
class Inputs:
    """The opened inputs of a request."""

    corpus: Corpus
    plan: TrainPlan  # of a run with the settings of the recipe
    space: Space
    metric: str  # by which trials are compared
    facts: Mapping[str, Any]  # what must not change while the sweep is unfinished


def sweep_folder(request: SweepRequest) -> Path:
    """The folder of an unfinished sweep."""
    out = Path(os.path.abspath(request.output_dir))
    return out.parent / f"{out.name}.trials"


def run_trial(
    trials: Trials, trial: Trial, folder: Path, request: SweepRequest, inputs: Inputs, on_step: OnStep
) -> None:
    """Run a trial and record its outcome."""
    number, started = trials.number_of(trial), time.monotonic()
    out = folder / f"trial-{number}"
    try:
        result = _train(trial, out, request, inputs, lambda step: on_step(number, step))
        scores = {"loss": result.eval_loss, **result.eval_figures}
        value, loss = scores[inputs.metric], scores["loss"]
        assert value is not None  # there are validation rows
        assert loss is not None
        trials.complete(trial, value, loss, result.seconds)
    except PrunedError:
        trials.prune(trial, time.monotonic() - started)
    except (TrainingDivergedError, MemoryFullError, InputError) as error:
        if isinstance(error, InputError) and trials.best is None:
            raise  # likely to end every trial
        trials.fail(trial, str(error), time.monotonic() - started)
    for path in (out, folder_of(out)):
        shutil.rmtree(path, ignore_errors=True)


def _train(
    trial: Trial, out: Path, request: SweepRequest, inputs: Inputs, on_step: Callable[[Step], None]
) -> TrainResult:
    """Train with the settings of a trial, from its checkpoint if it was killed.

    Raises:
        PrunedError: it falls behind the trials before it.
    """
    recipe = recipe_of(trial.params, request, inputs)
    figure = f"eval_{inputs.metric}"
    steps = recipe.count_steps(inputs.plan.rows)
    reported: set[int] = set()  # shares of the run, of which Optuna wants each once, also if it was killed
    before = trial.study.trials[trial.number].intermediate_values

    def compare(line: Mapping[str, float]) -> None:
        share = int(line["step"]) * EVALUATIONS // steps
        if figure not in line or not 0 < share < EVALUATIONS or share in reported:
            return
        reported.add(share)
        if share not in before:
            trial.report(line[figure], share)
        if trial.should_prune():
            raise PrunedError

    return train(
        TrainRequest(
            request.corpus,
            out,
            recipe,
            resume=out.exists() or bool(list_checkpoints(folder_of(out))),
            memory=request.memory,
            tracker_dir=sweep_folder(request).parent,
            resume_command=request.resume_command,
            prepare_command=request.prepare_command,
            keep_rows=request.keep_rows,
        ),
        on_step,
        [compare],
    )


def recipe_of(settings: Mapping[str, Setting], request: SweepRequest, inputs: Inputs) -> AdapterRecipe:
    """The recipe of a trial, with evaluations during the run unless the user said when."""
    recipe = change(request.recipe, {**settings, "metric_for_best_model": inputs.metric})
    steps = recipe.count_steps(inputs.plan.rows)
    return recipe.model_copy(update={"eval_steps": recipe.eval_steps or math.ceil(steps / EVALUATIONS)})
