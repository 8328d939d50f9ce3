"""Logs a training run or an evaluation to an experiment tracker."""

from __future__ import annotations

import importlib.util
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from finetune.errors import InputError
from finetune.hub.settings import is_offline
from finetune.trackers.tracker import Tracker

log = logging.getLogger(__name__)

# What must be installed; `wandb` always is, and the others are extras of the same name.
PACKAGES = {"tensorboard": ("tensorboard",), "trackio": ("trackio",), "mlflow": ("mlflow", "sqlalchemy", "alembic")}


class TrackedRun:
    """A run that a tracker logs; without a tracker, a run that is not logged.

    If the tracker fails, because its server is gone for example, the run goes on without it.
    """

    def __init__(self, tracker: Tracker | None = None) -> None:
        self.tracker, self.has_failed = tracker, False

    @property
    def id(self) -> str | None:
        """By which a resumed run continues this one; None if it is not logged."""
        return self.tracker.id if self.tracker else None

    def log(self, line: Mapping[str, float]) -> None:
        """Log a line of `training.jsonl`."""
        figures = {_name(key): value for key, value in line.items()}
        self._call(lambda tracker: tracker.log(figures, int(line["step"])))

    def finish(self, figures: Mapping[str, float], step: int = 0) -> None:
        """Log the final figures, which some trackers want to be those of a step."""
        self._call(lambda tracker: tracker.finish(figures, step))

    def close(self, *, failed: bool) -> None:
        """End the session."""
        self._call(lambda tracker: tracker.close(failed=failed))

    def _call(self, action: Callable[[Tracker], None]) -> None:
        if self.tracker is None or self.has_failed:
            return
        try:
            action(self.tracker)
        except Exception as error:  # of any library, and none of them is worth the hours of a run
            self.has_failed = True
            log.warning("The tracker failed (%s): the run goes on without it.", _describe(error))


@contextmanager
def open_run(config: Mapping[str, Any], folder: Path, resumed: str | None = None) -> Iterator[TrackedRun]:
    """Open a run, or continue the one with the id `resumed`.

    Only the configuration and the figures are logged: no paths, names, command lines or output of this machine.

    Args:
        folder: where trackers that write files put them, unless their own variables say otherwise.

    Raises:
        InputError: the tracker refuses, or its server does not answer.
    """
    if config["report_to"] == "none":
        yield TrackedRun()
        return
    try:
        run = TrackedRun(_start(config, folder, resumed))
    except Exception as error:
        raise InputError(
            f"--report-to {config['report_to']}: the tracker cannot be used ({_describe(error)}). Correct its settings, or "
            "leave out --report-to"
        ) from error
    try:
        yield run
    except BaseException:
        run.close(failed=True)
        raise
    run.close(failed=False)


def require_tracker(name: str) -> None:
    """Refuse a tracker whose packages are not installed, or whose server may not be used.

    Raises:
        InputError: names the packages and the command that installs them, or the variable that names the server.
    """
    server = urlsplit(os.environ.get("MLFLOW_TRACKING_URI", "")).scheme in ("http", "https", "databricks")
    if name == "mlflow" and server and is_offline():
        raise InputError(
            "MLFLOW_TRACKING_URI names a server, which --offline forbids. Unset it to log to a file next to the result, "
            "or leave out --offline"
        )
    missing = [package for package in PACKAGES.get(name, ()) if importlib.util.find_spec(package) is None]
    if missing:
        raise InputError(
            f"--report-to {name} needs {' and '.join(missing)}, which cannot be imported. Install with: pip install "
            f"'slmtune[{name}]'; or leave out --report-to"
        )


def _start(config: Mapping[str, Any], folder: Path, resumed: str | None) -> Tracker:
    """The tracker of the recipe; only its library is imported, which takes up to two seconds."""
    match config["report_to"]:
        case "tensorboard":
            from finetune.trackers.tensorboard import TensorBoard

            return TensorBoard(config, folder, resumed)
        case "trackio":
            from finetune.trackers.trackio import Trackio

            return Trackio(config, folder, resumed)
        case "mlflow":
            from finetune.trackers.mlflow import MLflow

            return MLflow(config, folder, resumed)
        case _:
            from finetune.trackers.weights_and_biases import WeightsAndBiases

            return WeightsAndBiases(config, folder, resumed)


def _describe(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0][:200]}" if str(error) else type(error).__name__


def _name(key: str) -> str:
    return f"eval/{key.removeprefix('eval_')}" if key.startswith("eval_") else f"train/{key}"
