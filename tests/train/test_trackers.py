"""Experiment trackers, each really run without a network: what it logged is what the run wrote, and nothing private."""

from __future__ import annotations

import getpass
import importlib
import json
import os
import signal
import socket
import sqlite3
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError, StoppedError
from finetune.recipe import AdapterRecipe
from finetune.train import Step, TrainRequest, TrainResult, train
from finetune.train.trackers.tracked_run import require_tracker

Logged = dict[str, dict[int, float]]  # name → step → value
TRACKERS = ("wandb", "tensorboard", "trackio", "mlflow")


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is logged; every connection to another machine fails the test."""
    folder = tmp_path / "tracked"
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", folder)  # read from TRACKIO_DIR during import
    for variable in ("PYTEST_CURRENT_TEST", "CI"):
        monkeypatch.delenv(variable, raising=False)  # they turn telemetry off
    monkeypatch.setattr(socket.socket, "connect", _refuse(socket.socket.connect))
    return folder


def _refuse(connect: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
    def local(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), f"connects to {address}"
        connect(self, address)

    return local


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


def read_wandb(folder: Path) -> list[tuple[Logged, dict[str, Any], dict[str, float]]]:
    """The runs of offline logs; the sessions of a run are one run."""
    runs: dict[str, tuple[Logged, dict[str, Any], dict[str, float]]] = {}
    messages: Any = importlib.import_module("wandb.proto.wandb_internal_pb2")  # it has no types
    for file in sorted((folder / "tracked" / "wandb").glob("offline-run-*/run-*.wandb")):
        figures, config, final = runs.setdefault(file.name, ({}, {}, {}))
        for data in leveldb_records(file.read_bytes()):
            record = messages.Record()
            record.ParseFromString(data)
            items = {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in record.history.item}
            for name, value in items.items():
                assert items["_step"] not in figures.setdefault(name, {}) or not name.endswith("loss")
                figures[name][items["_step"]] = value
            for update in (*record.run.config.update, *record.config.update):
                config[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
            for update in record.summary.update:
                final[update.key or "/".join(update.nested_key)] = json.loads(update.value_json)
    return list(runs.values())


def leveldb_records(data: bytes, header: int = 7, block: int = 32768) -> Iterator[bytes]:
    """Records of a log in LevelDB's format (leveldb/doc/log_format.md), after wandb's own 7-byte header."""
    position, whole = header, b""
    while position + 7 <= len(data):
        if block - position % block < 7:
            position += block - position % block  # a block's last bytes are too few for a record
            continue
        length, kind = struct.unpack_from("<HB", data, position + 4)
        whole += data[position + 7 : position + 7 + length]
        position += 7 + length
        if kind in (1, 4):  # full, last
            yield whole
            whole = b""


def read_tensorboard(folder: Path) -> list[tuple[Logged, dict[str, Any], dict[str, float]]]:
    """The runs as TensorBoard itself reads them; it drops steps that a later session repeats."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs = []
    for directory in (folder / "tracked").iterdir():
        events: Any = EventAccumulator(str(directory))
        events.Reload()
        tags = events.Tags()["scalars"]
        scalars = {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in tags}
        assert all(len(dict(pairs)) == len(pairs) for tag, pairs in scalars.items() if tag.endswith("loss"))
        (table,) = events.Tensors("config/text_summary")
        text = table.tensor_proto.string_val[0].decode()
        config = dict(line.strip("| ").split(" | ", 1) for line in text.splitlines() if " | " in line)
        final = {tag.removeprefix("final/"): pairs[0][1] for tag, pairs in scalars.items() if tag.startswith("final/")}
        runs.append(({tag: dict(pairs) for tag, pairs in scalars.items()}, config, final))
    return runs


def read_trackio(folder: Path) -> list[tuple[Logged, dict[str, Any], dict[str, float]]]:
    """The runs as Trackio's own reader returns them."""
    from trackio.sqlite_storage import SQLiteStorage

    runs = []
    for name in SQLiteStorage.get_runs("slmtune"):
        figures: Logged = {}
        final = {}
        for line in SQLiteStorage.get_logs("slmtune", name):
            for key, value in line.items():
                if key.startswith("final/"):
                    final[key.removeprefix("final/")] = value
                elif key not in ("step", "timestamp"):
                    assert line["step"] not in figures.setdefault(key, {}) or not key.endswith("loss")
                    figures[key][line["step"]] = value
        runs.append((figures, SQLiteStorage.get_run_config("slmtune", name) or {}, final))
    return runs


def read_mlflow(folder: Path) -> list[tuple[Logged, dict[str, Any], dict[str, float]]]:
    """The runs in MLflow's database."""
    connection = sqlite3.connect(folder / "mlflow.db")
    runs = []
    for (run,) in connection.execute("select run_uuid from runs").fetchall():
        figures: Logged = {}
        for name, step, value in connection.execute("select key, step, value from metrics where run_uuid = ?", (run,)):
            assert step not in figures.setdefault(name, {}) or not name.endswith("loss")
            figures[name][step] = value
        config = dict(connection.execute("select key, value from params where run_uuid = ?", (run,)).fetchall())
        final = {
            name.removeprefix("final/"): next(iter(values.values()))
            for name, values in figures.items()
            if name.startswith("final/")
        }
        runs.append((figures, config, final))
    connection.close()
    return runs


READ = {"wandb": read_wandb, "tensorboard": read_tensorboard, "trackio": read_trackio, "mlflow": read_mlflow}
