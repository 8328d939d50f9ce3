"""Corpus → the best recipe: one run per trial, compared on the validation split; the test split is never read."""

from __future__ import annotations

import json
import logging
import math
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json
from optuna.trial import Trial

from finetune.artifacts import Corpus, Sweep, ensure_replaceable, remove_leftovers, writing
from finetune.errors import (
    InputError,
    MemoryFullError,
    PrunedError,
    SlmtuneError,
    TrainingDivergedError,
)
from finetune.lock import lock_folder
from finetune.models.find import find_base
from finetune.recipe import AdapterRecipe
from finetune.recipe.options import check
from finetune.sweep.report import write_report
from finetune.sweep.request import Setting, SweepPlan, SweepRequest, SweepResult, TrialRecord
from finetune.sweep.space import Space, change, default_space, describe, own_settings, read_space
from finetune.sweep.trials import Trials
from finetune.train import Step, TrainPlan, TrainRequest, TrainResult, plan_training, train
from finetune.train.checkpoints.checkpoint import folder_of, list_checkpoints
from finetune.train.checkpoints.resume import EVALUATION, FREE

log = logging.getLogger(__name__)

EVALUATIONS = 5  # per run, so that runs of any length are compared after the same shares of their steps
FILE = "trials.db"
OnStep = Callable[[int, Step], None]  # with the number of the trial
OnTrial = Callable[[TrialRecord], None]


def sweep(request: SweepRequest, on_step: OnStep | None = None, on_trial: OnTrial | None = None) -> SweepResult:
    """Train with different settings, and write the trials, their picture and the best recipe.

    Raises:
        InputError: the corpus has no validation rows, the settings cannot be searched, an unfinished sweep exists and `resume`
            is false, or the sweep to resume had other inputs.
        OutputInUseError: another process is writing the same sweep.
        StoppedError: SIGINT or SIGTERM arrived during a trial, which resumes from its checkpoint.
        SlmtuneError: no trial has a value.
    """
    out = Path(os.path.abspath(request.output_dir))
    if not request.resume:
        ensure_replaceable(out, overwrite=request.overwrite)
    inputs = _open(request)
    folder = _folder(request)
    with lock_folder(folder, out):
        remove_leftovers(out)
        trials = _open_trials(folder, out, request, inputs)
        while len(trials.records()) < request.trials:
            trial = trials.next_trial()
            if trial is None:
                log.info("All of the settings have been tried.")
                break
            _run_trial(trials, trial, folder, request, inputs, on_step)
            if on_trial is not None:
                on_trial(trials.records()[-1])
        result = _result(request.output_dir, trials, inputs.metric)
        with writing(out, Sweep, overwrite=request.overwrite or request.resume) as writer:
            shutil.copyfile(folder / FILE, writer.folder / FILE)
            writer.manifest["config"] = inputs.facts
            write_report(writer.folder, result, _recipe(result.best.settings, request, inputs), inputs.space)
        shutil.rmtree(folder)
    return result


def plan_sweep(request: SweepRequest) -> SweepPlan:
    """The settings that `sweep` would search and the size of a run, without training."""
    ensure_replaceable(request.output_dir, overwrite=request.overwrite or request.resume)
    inputs = _open(request)
    return SweepPlan(
        model=inputs.plan.model,
        rows=inputs.plan.rows,
        validation_rows=inputs.corpus.counts["validation"],
        trials=request.trials,
        metric=inputs.metric,
        steps=inputs.plan.steps,
        search={name: describe(values) for name, values in inputs.space.items()},
    )


@dataclass(frozen=True)
class _Inputs:
    """The opened inputs of a request."""

    corpus: Corpus
    plan: TrainPlan  # of a run with the settings of the recipe
    space: Space
    metric: str  # by which trials are compared
    facts: Mapping[str, Any]  # what must not change while the sweep is unfinished


def _open(request: SweepRequest) -> _Inputs:
    check(request)
    corpus = Corpus.open(request.corpus, command=request.prepare_command)
    if not corpus.counts["validation"]:
        raise InputError(
            f"The corpus at {request.corpus} has no validation rows, by which a sweep compares its runs. Prepare it again with "
            "more data, or with another division, such as --split-ratio 0.8/0.1/0.1"
        )
    given = read_space(request.search, request.recipe)
    recipe = request.recipe.model_copy(update={"eval_steps": request.recipe.eval_steps or None})
    plan = plan_training(
        TrainRequest(request.corpus, _folder(request) / "plan", recipe, memory=request.memory, overwrite=True)
    )
    assert plan.metric is not None  # there are validation rows
    space = given or default_space(plan.recipe)
    settings = plan.recipe.model_dump(mode="json", exclude=FREE | EVALUATION)
    facts = {
        "settings": settings,
        "metric": plan.metric,
        "search": {name: distribution_to_json(values) for name, values in space.items()},
        "corpus": corpus.fingerprint,
        "base model": find_base(recipe.model, recipe.revision).fingerprint,
    }
    return _Inputs(corpus, plan, space, plan.metric, json.loads(json.dumps(facts)))


def _folder(request: SweepRequest) -> Path:
    """The folder of an unfinished sweep."""
    out = Path(os.path.abspath(request.output_dir))
    return out.parent / f"{out.name}.trials"


def _open_trials(folder: Path, out: Path, request: SweepRequest, inputs: _Inputs) -> Trials:
    """The trials so far: those of an unfinished sweep, those of a finished one, or none."""
    file = folder / FILE
    if file.exists() and not request.resume:
        if not request.overwrite:
            raise InputError(
                f"There is an unfinished sweep in {folder}. Resume it with: {request.resume_command}; or start again with "
                "--overwrite, which deletes it"
            )
        for path in folder.glob("tri*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    if request.resume and not file.exists() and out.exists():
        shutil.copyfile(Sweep.open(out).path / FILE, file)
    trials = Trials(file, inputs.space, inputs.plan.recipe.seed, maximize=inputs.metric != "loss")
    if trials.facts is None:
        trials.begin(inputs.facts, own_settings(inputs.plan.recipe, inputs.space))
    elif changed := [name for name in inputs.facts if inputs.facts[name] != trials.facts.get(name)]:
        raise InputError(
            f"The sweep in {folder} cannot be resumed, because these have changed: {', '.join(changed)}. Use the original "
            "ones, or start again with --overwrite and without --resume"
        )
    return trials


def _run_trial(
    trials: Trials, trial: Trial, folder: Path, request: SweepRequest, inputs: _Inputs, on_step: OnStep | None
) -> None:
    """Run a trial and record its outcome."""
    number, started = len(trials.records()), time.monotonic()
    out = folder / f"trial-{number}"
    report = None if on_step is None else lambda step: on_step(number, step)
    try:
        result = _train(trial, out, request, inputs, report)
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
        log.warning("Trial %d failed: %s", number, error)
        trials.fail(trial, str(error), time.monotonic() - started)
    for path in (out, folder_of(out)):
        shutil.rmtree(path, ignore_errors=True)


def _train(
    trial: Trial, out: Path, request: SweepRequest, inputs: _Inputs, on_step: Callable[[Step], None] | None
) -> TrainResult:
    """Train with the settings of a trial, from its checkpoint if it was killed.

    Raises:
        PrunedError: it falls behind the trials before it.
    """
    recipe = _recipe(trial.params, request, inputs)
    figure = f"eval_{inputs.metric}"
    steps = recipe.count_steps(inputs.plan.rows)
    reported = {-1}  # shares of the run, of which Optuna wants each once

    def compare(line: Mapping[str, float]) -> None:
        share = int(line["step"]) * EVALUATIONS // steps
        if figure not in line or not 0 < share < EVALUATIONS or share in reported:
            return
        reported.add(share)
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
            tracker_dir=_folder(request).parent,
            resume_command=request.resume_command,
            prepare_command=request.prepare_command,
        ),
        on_step,
        [compare],
    )


def _recipe(settings: Mapping[str, Setting], request: SweepRequest, inputs: _Inputs) -> AdapterRecipe:
    """The recipe of a trial, with evaluations during the run unless the user said when."""
    recipe = change(request.recipe, {**settings, "metric_for_best_model": inputs.metric})
    steps = recipe.count_steps(inputs.plan.rows)
    return recipe.model_copy(update={"eval_steps": recipe.eval_steps or math.ceil(steps / EVALUATIONS)})


def _result(out: Path, trials: Trials, metric: str) -> SweepResult:
    """The result of a sweep whose trials are finished.

    Raises:
        SlmtuneError: none of them has a value.
    """
    records = trials.records()
    best = trials.best
    if best is None:
        problems = dict.fromkeys(record.problem for record in records if record.problem)
        raise SlmtuneError(
            f"None of the {len(records)} trials ended with a value. Start again with --overwrite and smaller values. The "
            f"problems were: {' / '.join(map(str, problems))}"
        )
    return SweepResult(
        sweep=out,
        metric=metric,
        best=best,
        config=out / "best.yaml",
        trials=records,
        seconds=sum(record.seconds or 0.0 for record in records),
    )
