"""What experiment trackers keep on this machine, read without slmtune."""

from __future__ import annotations

import importlib
import json
import sqlite3
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from finetune.recipe.values import Tracker

Logged = dict[str, dict[int, float]]  # name → step → value
TRACKERS: tuple[Tracker, ...] = ("wandb", "tensorboard", "trackio", "mlflow")


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
