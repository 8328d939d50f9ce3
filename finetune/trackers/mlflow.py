"""Logs to MLflow: to what `MLFLOW_TRACKING_URI` names, or to the database `mlflow.db` next to the result."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from finetune.trackers.tracker import PROJECT

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # mlflow 3.17 uses what SQLAlchemy 2.1 deprecates
    from mlflow import MlflowClient
    from mlflow.entities import Metric, Param
    from mlflow.exceptions import MlflowException
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

ARTIFACTS = "mlflow-artifacts:/"  # a place that the server decides; by default it is the path of the working folder


class MLflow:
    """A run in an experiment of MLflow."""

    def __init__(self, config: Mapping[str, Any], folder: Path, resumed: str | None) -> None:
        self.client = MlflowClient(os.environ.get("MLFLOW_TRACKING_URI") or _create_database(folder / "mlflow.db"))
        self.known: dict[str, int] = {}  # the last step of each figure that a resumed run may repeat
        self.resumed = resumed is not None and self._exists(resumed)
        self.id = resumed if resumed is not None and self.resumed else self._create(config)
        self.client.update_run(self.id, status="RUNNING")

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log the figures of a step, without those that the run has."""
        now = int(time.time() * 1000)
        new = {name: value for name, value in figures.items() if step > self._last_step(name)}
        self.client.log_batch(self.id, metrics=[Metric(name, value, now, step) for name, value in new.items()])

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """Log the final figures as those of the last step."""
        self.log({f"final/{name}": value for name, value in figures.items()}, step)

    def close(self, *, failed: bool) -> None:
        """Set the status of the run."""
        self.client.set_terminated(self.id, "FAILED" if failed else "FINISHED")

    def _create(self, config: Mapping[str, Any]) -> str:
        name = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        experiment = self.client.get_experiment_by_name(name)
        number = experiment.experiment_id if experiment else self.client.create_experiment(name, f"{ARTIFACTS}{name}")
        run: str = self.client.create_run(number).info.run_id
        self.client.log_batch(run, params=[Param(key, str(value)) for key, value in config.items()])
        return run

    def _exists(self, run: str) -> bool:
        try:
            self.client.get_run(run)
        except MlflowException:
            return False
        return True

    def _last_step(self, name: str) -> int:
        if not self.resumed:
            return -1
        if name not in self.known:
            self.known[name] = max((one.step for one in self.client.get_metric_history(self.id, name)), default=-1)
        return self.known[name]


def _create_database(file: Path) -> str:
    """The address of a database, whose tables are created here so that it contains no path."""
    file.parent.mkdir(parents=True, exist_ok=True)
    address = f"sqlite:///{file.absolute()}"
    for name in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(name).setLevel(logging.WARNING)  # each new table is a line
    if not file.exists():
        create: Any = SqlAlchemyStore  # it has no types
        create(address, ARTIFACTS)
    return address
