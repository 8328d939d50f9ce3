"""Experiment trackers, each really run without a network: what it logged is what the run wrote, and nothing private."""

from __future__ import annotations

import getpass
import json
import os
import signal
import socket
import sqlite3
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError, StoppedError
from finetune.recipe import AdapterRecipe
from finetune.trackers.tracked_run import require_tracker
from finetune.train import Step, TrainRequest, TrainResult, train

from .readers import READ, TRACKERS


def request(model: Path, corpus: Path, out: Path, tracker: str, **changes: Any) -> TrainRequest:
    settings: dict[str, Any] = {"max_steps": 3, "logging_steps": 1, "eval_steps": 2, "learning_rate": 1e-2, "lora_r": 4}
    return TrainRequest(corpus, out, AdapterRecipe(model=str(model), report_to=tracker, **settings | changes))


def expected(adapter: Path) -> dict[str, dict[int, Any]]:
    """The losses in `training.jsonl`."""
    lines = [json.loads(line) for line in (adapter / "training.jsonl").read_text("utf-8").splitlines()]
    names = {"loss": "train/loss", "eval_loss": "eval/loss"}
    return {
        names[name]: {line["step"]: pytest.approx(line[name], rel=1e-5) for line in lines if name in line}
        for name in names
    }


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracker_has_the_losses_the_settings_and_the_final_figures(
    tracker: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path
) -> None:
    result = train(request(tiny_model, tiny_corpus, tmp_path / "out", tracker))
    ((figures, config, final),) = READ[tracker](tmp_path)
    assert {name: figures[name] for name in ("train/loss", "eval/loss")} == expected(tmp_path / "out")
    assert int(config["lora_r"]) == 4
    assert config["model"] == "tiny-llama"
    assert final["eval_loss"] == pytest.approx(result.eval_loss)
    assert final["supervised_tokens"] == result.supervised_tokens


@pytest.mark.parametrize("tracker", TRACKERS)
def test_resumed_run_is_the_same_run_with_each_step_once(
    tracker: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path
) -> None:
    asked = request(tiny_model, tiny_corpus, tmp_path / "out", tracker)
    with pytest.raises(StoppedError):
        train(asked, lambda step: signal.raise_signal(signal.SIGTERM) if step.step == 2 else None)
    result: TrainResult = train(replace(asked, resume=True))
    ((figures, config, final),) = READ[tracker](tmp_path)
    assert {name: figures[name] for name in ("train/loss", "eval/loss")} == expected(tmp_path / "out")
    assert config["model"] == "tiny-llama"
    assert final["steps"] == result.steps


@pytest.mark.parametrize("tracker", TRACKERS[1:])  # the server of Weights & Biases ignores repeated steps itself
def test_steps_that_a_killed_run_repeats_count_once(
    tracker: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path
) -> None:
    class Crash(Exception):
        pass

    def crash(step: Step) -> None:
        if step.step == 4:
            raise Crash

    asked = request(tiny_model, tiny_corpus, tmp_path / "out", tracker, max_steps=5, save_steps=2)
    with pytest.raises(Crash):
        train(asked, crash)
    train(replace(asked, resume=True))
    ((figures, _, _),) = READ[tracker](tmp_path)
    assert {name: figures[name] for name in ("train/loss", "eval/loss")} == expected(tmp_path / "out")


def test_tracker_that_fails_does_not_end_the_run(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def spoil(step: Step) -> None:
        if step.step == 2:
            with sqlite3.connect(tmp_path / "mlflow.db") as database:
                database.execute("drop table metrics")

    result = train(request(tiny_model, tiny_corpus, tmp_path / "out", "mlflow"), spoil)
    assert result.steps == 3
    assert caplog.text.count("The tracker failed") == 1
    assert "the run goes on without it" in caplog.text


def test_server_that_does_not_answer_is_one_paragraph(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # no program listens to this port
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(InputError, match="--report-to mlflow: the tracker cannot be used") as error:
        train(request(tiny_model, tiny_corpus, tmp_path / "out", "mlflow"))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracker_keeps_nothing_private(
    tracker: str, tiny_model: Path, tiny_corpus: Path, tmp_path: Path, tracked: Path
) -> None:
    train(request(tiny_model, tiny_corpus, tmp_path / "out", tracker))
    home = str(Path.home())
    private = [tiny_model.parent, tiny_corpus.parent, tmp_path, os.getcwd(), socket.gethostname(), sys.executable]
    words = [str(word).encode() for word in private] + [b"Shares of company", home.encode() + b"/"]
    words += [getpass.getuser().encode()] if getpass.getuser() != "root" else []  # a word in MLflow's tables
    files = [path for path in tmp_path.rglob("*") if path.is_file() and tmp_path / "out" not in path.parents]
    ours = [path for path in files if path.suffix != ".log"]  # wandb's own, which it does not send
    assert ours
    names = [str(path.relative_to(tmp_path)) for path in ours]
    assert not [name for name in names if socket.gethostname() in name]
    assert not [(path.name, word) for path in ours for word in words if word in path.read_bytes()]


@pytest.mark.parametrize("tracker", TRACKERS[1:])
def test_missing_package_is_reported_before_anything_loads(
    tracker: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, tracker, None)
    with pytest.raises(InputError, match=rf"needs {tracker}, which .* pip install 'slmtune\[{tracker}\]'"):
        train(request(tmp_path / "no model", tmp_path / "no corpus", tmp_path / "out", tracker))


def test_offline_run_refuses_a_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example")
    with pytest.raises(InputError, match="--offline forbids"):
        require_tracker("mlflow")
