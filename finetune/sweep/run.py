"""Corpus → the best recipe: one run per trial, compared on the validation split; the test split is never read."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

from optuna.distributions import distribution_to_json

from finetune.artifacts import Sweep, ensure_replaceable, remove_leftovers, writing
from finetune.corpus.open import open_corpus
from finetune.errors import InputError, SlmtuneError
from finetune.lock import lock_folder
from finetune.models.find import find_base
from finetune.recipe.option_fields import check
from finetune.sweep.report import write_report
from finetune.sweep.request import SweepPlan, SweepRequest, SweepResult
from finetune.sweep.space import default_space, describe, own_settings, read_space
from finetune.sweep.trial_run import Inputs, OnStep, recipe_of, sweep_folder
from finetune.sweep.trials import Trials
from finetune.sweep.workers import OnTrial, run_in_turn, run_side_by_side
from finetune.train import TrainRequest, plan_training
from finetune.train.checkpoints.resume import EVALUATION, FREE
from finetune.workers import require_devices

FILE = "trials.db"


def sweep(request: SweepRequest, on_step: OnStep | None = None, on_trial: OnTrial | None = None) -> SweepResult:
    """Train with different settings, and write the trials, their picture and the best recipe.

    Raises:
        InputError: the corpus has no validation rows, the settings cannot be searched, an unfinished sweep exists and `resume`
            is false, the sweep to resume had other inputs, or there are more workers than cores or GPUs.
        OutputInUseError: another process is writing the same sweep.
        StoppedError: SIGINT or SIGTERM arrived during a trial, which resumes from its checkpoint.
        LostProcessError: a worker has ended.
        SlmtuneError: no trial has a value.
    """
    out = Path(os.path.abspath(request.output_dir))
    if not request.resume:
        ensure_replaceable(out, overwrite=request.overwrite)
    inputs = _open(request)
    folder = sweep_folder(request)
    with lock_folder(folder, out):
        remove_leftovers(out)
        trials = _open_trials(folder, out, request, inputs)
        run = run_in_turn if request.workers == 1 else run_side_by_side
        run(trials, folder, request, inputs, on_step or (lambda number, step: None), on_trial or (lambda record: None))
        result = _result(request.output_dir, trials, inputs.metric)
        with writing(out, Sweep, overwrite=request.overwrite or request.resume) as writer:
            shutil.copyfile(folder / FILE, writer.folder / FILE)
            writer.manifest["config"] = inputs.facts
            write_report(writer.folder, result, recipe_of(result.best.settings, request, inputs), inputs.space)
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


def _open(request: SweepRequest) -> Inputs:
    check(request)
    require_devices("--workers", request.workers)
    corpus = open_corpus(request.corpus, command=request.prepare_command)
    if not corpus.counts["validation"]:
        raise InputError(
            f"The corpus at {request.corpus} has no validation rows, by which a sweep compares its runs. Prepare it again with "
            "more data, or with another division, such as --split-ratio 0.8/0.1/0.1"
        )
    given = read_space(request.search, request.recipe)
    recipe = request.recipe.model_copy(update={"eval_steps": request.recipe.eval_steps or None})
    plan = plan_training(
        TrainRequest(
            request.corpus,
            sweep_folder(request) / "plan",
            recipe,
            memory=request.memory,
            overwrite=True,
            keep_rows=request.keep_rows,
        )
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
    return Inputs(corpus, plan, space, plan.metric, json.loads(json.dumps(facts)))


def _open_trials(folder: Path, out: Path, request: SweepRequest, inputs: Inputs) -> Trials:
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
    seed, side_by_side = inputs.plan.recipe.seed, request.workers > 1
    trials = Trials(file, inputs.space, seed, maximize=inputs.metric != "loss", side_by_side=side_by_side)
    if trials.facts is None:
        trials.begin(inputs.facts, own_settings(inputs.plan.recipe, inputs.space))
    elif changed := [name for name in inputs.facts if inputs.facts[name] != trials.facts.get(name)]:
        raise InputError(
            f"The sweep in {folder} cannot be resumed, because these have changed: {', '.join(changed)}. Use the original "
            "ones, or start again with --overwrite and without --resume"
        )
    return trials


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
