"""Sweeps: finished, killed and resumed, pruned, and with trials that fail; on the validation split alone."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from finetune.artifacts import Sweep, fingerprint_of, sha256_of
from finetune.errors import InputError, OutputExistsError, SlmtuneError
from finetune.prepare import PrepareRequest, prepare
from finetune.recipe import AdapterRecipe, load_adapter_recipe
from finetune.sweep import SweepRequest, plan_sweep, sweep
from finetune.train import Step, TrainRequest, train

from ..command import Command, run

pytestmark = pytest.mark.slow  # each trial is a run

SEARCH = ("learning_rate=1e-4:3e-2:log", "lora_r=2,4,8")


def request(model: Path, corpus: Path, out: Path, **changes: Any) -> SweepRequest:
    recipe = AdapterRecipe(model=str(model), max_steps=10, logging_steps=1)
    fields: dict[str, Any] = {"recipe": recipe, "search": SEARCH, "trials": 8} | changes
    return SweepRequest(corpus=corpus, output_dir=out, **fields)


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tiny_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "sweep"
    sweep(request(tiny_model, tiny_corpus, folder))
    return folder


def read(folder: Path) -> dict[str, Any]:
    facts: dict[str, Any] = json.loads((folder / "sweep.json").read_text("utf-8"))
    return facts


def test_finished_sweep_names_its_best_trial(finished: Path) -> None:
    facts = read(finished)
    assert len(facts["trials"]) == 8
    values = [trial["value"] for trial in facts["trials"] if trial["state"] == "complete"]
    assert facts["best"]["value"] == min(values) < max(values)
    assert {path.name for path in finished.iterdir()} == {
        *("manifest.json", "sweep.json", "sweep.png", "best.yaml", "trials.db"),
    }
    Sweep.open(finished)
    assert not list(finished.parent.glob("*.trials"))


def test_trial_that_falls_behind_is_stopped_early(finished: Path) -> None:
    pruned = [trial for trial in read(finished)["trials"] if trial["state"] == "pruned"]
    assert pruned
    assert min(trial["value"] for trial in pruned) > read(finished)["best"]["value"]


def test_best_recipe_trains_to_the_value_of_its_trial(
    finished: Path, tiny_corpus: Path, tmp_path: Path, tiny_model: Path
) -> None:
    best = read(finished)["best"]
    text = (finished / "best.yaml").read_text("utf-8")
    settings = yaml.safe_load(text)
    assert settings["learning_rate"] == best["settings"]["learning_rate"]
    assert settings["lora_alpha"] == 2 * settings["lora_r"]
    assert f"trial {best['number']}, with loss" in text
    recipe = load_adapter_recipe(None, finished / "best.yaml")
    result = train(TrainRequest(tiny_corpus, tmp_path / "adapter", recipe))
    assert result.eval_loss == pytest.approx(best["value"], abs=1e-6)


def test_killed_sweep_resumes_to_the_same_trials(
    finished: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    search = [word for text in SEARCH for word in ("--search", text)]
    arguments = [
        *("sweep", "--corpus", tiny_corpus, "--model", tiny_model, "--max-steps", 10, "--logging-steps", 1),
        *("--trials", 8, "--save-steps", 2, "--out", "sweep", "--json", *search),
    ]
    running = Command(*arguments, cwd=tmp_path)
    assert running.until(lambda: list(tmp_path.glob("sweep.trials/trial-2.checkpoints/checkpoint-4"))), running.stderr
    running.kill()
    refused = run(*arguments, cwd=tmp_path)
    assert refused.returncode == 2
    assert "There is an unfinished sweep" in refused.stderr
    assert "Resume it with: slmtune sweep" in refused.stderr
    done = run(*arguments, "--resume", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "Resuming from" in done.stderr
    assert _outcomes(json.loads(done.stdout)["trials"]) == _outcomes(read(finished)["trials"])


def _outcomes(trials: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(trial["state"], trial["value"] and round(trial["value"], 5), trial["settings"]) for trial in trials]


def test_stopped_trial_resumes_from_its_checkpoint(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(trial: int, step: Step) -> None:
        if (trial, step.step) == (1, 7):
            raise Stop

    recipe = AdapterRecipe(model=str(tiny_model), max_steps=10, logging_steps=1, save_steps=2)
    asked = request(tiny_model, tiny_corpus, tmp_path / "sweep", recipe=recipe, trials=2)
    with pytest.raises(Stop):
        sweep(asked, stop)
    steps: list[tuple[int, int]] = []
    result = sweep(replace(asked, resume=True), lambda trial, step: steps.append((trial, step.step)))
    assert steps[0] == (1, 7)
    assert [trial.state for trial in result.trials] == ["complete", "complete"]


def test_finished_sweep_gets_more_trials(finished: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    out = shutil.copytree(finished, tmp_path / "sweep")
    asked = request(tiny_model, tiny_corpus, out, trials=9)
    with pytest.raises(OutputExistsError):
        sweep(asked)
    result = sweep(replace(asked, resume=True))
    assert [trial.number for trial in result.trials] == list(range(9))
    assert _outcomes(read(out)["trials"][:8]) == _outcomes(read(finished)["trials"])
    with pytest.raises(InputError, match="cannot be resumed, because these have changed: search"):
        sweep(replace(asked, resume=True, search=("lora_r=2,4",)))


def test_each_trial_is_logged_to_the_tracker(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, logging_steps=1, report_to="tensorboard")
    sweep(request(tiny_model, tiny_corpus, tmp_path / "sweep", recipe=recipe, trials=2))
    assert len(list((tmp_path / "tensorboard").glob("*/events.out.tfevents.*"))) == 2


def test_labelled_rows_are_compared_by_f1(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"Shares {('fell', 'rose')[n % 2]} {n} times.", "label": ("down", "up")[n % 2]} for n in range(60)]
    corpus = prepare_rows(rows, tmp_path, "0.6/0.2/0.2")
    result = sweep(request(tiny_model, corpus, tmp_path / "sweep", trials=2))
    assert result.metric == "weighted_f1"
    values = [trial.value or 0.0 for trial in result.trials]
    assert result.best.value == max(values) <= 1
    recipe = load_adapter_recipe(None, result.config)
    again = train(TrainRequest(corpus, tmp_path / "adapter", recipe))
    assert again.eval_figures["weighted_f1"] == result.best.value


def prepare_rows(rows: list[dict[str, Any]], folder: Path, ratio: str) -> Path:
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    sources = (str(folder / "rows.jsonl"),)
    prepare(PrepareRequest(folder / "corpus", sources=sources, split_ratio=ratio, license="cc0-1.0"))
    return folder / "corpus"


def test_settings_are_not_tried_twice(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, logging_steps=1)
    trained: set[int] = set()
    asked = request(tiny_model, tiny_corpus, tmp_path / "sweep", recipe=recipe, search=("lora_r=2,4",), trials=5)
    result = sweep(asked, lambda trial, step: trained.add(trial))
    assert trained == {0, 1}
    assert [trial.number for trial in result.trials] == [0, 1]
    assert {trial.settings["lora_r"] for trial in result.trials} == {2, 4}


def test_failed_trial_is_recorded_and_the_sweep_goes_on(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, logging_steps=1)
    search = ("weight_decay=0,1e38", "lora_r=2,4")
    result = sweep(request(tiny_model, tiny_corpus, tmp_path / "sweep", recipe=recipe, search=search, trials=6))
    failed = [trial for trial in result.trials if trial.state == "failed"]
    assert failed
    assert all(trial.settings["weight_decay"] == 1e38 and trial.value is None for trial in failed)
    assert all("not finite" in (trial.problem or "") or "diverged" in (trial.problem or "") for trial in failed)
    assert result.best.settings["weight_decay"] == 0


def test_sweep_without_any_value_says_why(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, logging_steps=1)
    asked = request(
        tiny_model, tiny_corpus, tmp_path / "sweep", recipe=recipe, search=("weight_decay=1e37,1e38",), trials=2
    )
    with pytest.raises(SlmtuneError, match="None of the 2 trials ended with a value"):
        sweep(asked)


def test_sweep_never_reads_the_test_split(finished: Path, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = shutil.copytree(tiny_corpus, tmp_path / "corpus")
    manifest = json.loads((corpus / "manifest.json").read_text("utf-8"))
    (file,) = (corpus / "data").glob("test-*.parquet")
    file.write_bytes(b"not a table")
    manifest["files"][file.relative_to(corpus).as_posix()] = sha256_of(file)
    manifest["fingerprint"] = fingerprint_of(manifest)
    (corpus / "manifest.json").write_text(json.dumps(manifest), "utf-8")
    result = sweep(request(tiny_model, corpus, tmp_path / "sweep", trials=2))
    assert [trial.value for trial in result.trials] == [trial["value"] for trial in read(finished)["trials"][:2]]


def test_corpus_without_validation_rows_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    rows = [{"text": f"Shares rose {number} times.", "label": "up" if number % 2 else "down"} for number in range(20)]
    corpus = prepare_rows(rows, tmp_path, "0.8/0/0.2")
    with pytest.raises(InputError, match="has no validation rows, by which a sweep compares its runs"):
        plan_sweep(request(tiny_model, corpus, tmp_path / "sweep"))


def test_dry_run_says_what_would_be_searched(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    plan = plan_sweep(request(tiny_model, tiny_corpus, tmp_path / "sweep", search=()))
    searched: Mapping[str, str] = plan.search
    assert searched["lora_r"] == "8, 16, 32"
    assert searched["learning_rate"] == "0.0002 to 0.005, logarithmic"
    assert plan.steps == 10
    assert not list(tmp_path.iterdir())
