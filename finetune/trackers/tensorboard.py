"""Logs event files for TensorBoard, next to the result or in `TENSORBOARD_LOGGING_DIR`."""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tensorboard.compat.proto.event_pb2 import Event, SessionLog
from tensorboard.summary.writer.record_writer import RecordWriter
from torch.utils.tensorboard.summary import hparams, scalar, text

SIMPLE = (bool, int, float, str)  # what the tab of hyperparameters shows


class TensorBoard:
    """A folder of event files, one per session of the run.

    The files are written here because `SummaryWriter` puts the name of the machine into the name of its file.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, resumed: str | None) -> None:
        self.id = resumed or f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"
        directory = Path(os.environ.get("TENSORBOARD_LOGGING_DIR") or folder / "tensorboard") / self.id
        directory.mkdir(parents=True, exist_ok=True)
        sessions = len(list(directory.iterdir()))
        file = directory / f"events.out.tfevents.{int(time.time()):010d}.{sessions}"
        self.file = file.open("ab")
        self.records = RecordWriter(self.file)
        self.config = {name: value for name, value in config.items() if isinstance(value, SIMPLE)}
        self.repeats = resumed is not None  # until the first step of this session says which ones it repeats
        self._write(Event(file_version="brain.Event:2"))
        if not resumed:
            rows = "".join(f"| {name} | {value} |\n" for name, value in config.items())
            self._write(Event(summary=text("config", f"| setting | value |\n|---|---|\n{rows}")))

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log the figures of a step; a resumed session first tells TensorBoard to drop the steps that it repeats."""
        if self.repeats:
            first = (
                step if "train/loss" in figures else step + 1
            )  # only an evaluation was due: the step itself is known
            self._write(Event(step=first, session_log=SessionLog(status=SessionLog.START)))
            self.repeats = False
        for name, value in figures.items():
            self._write(Event(step=step, summary=scalar(name, value)))
        self.records.flush()

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """Log the final figures, and the settings beside them for the tab that compares runs."""
        final = {f"final/{name}": value for name, value in figures.items()}
        for summary in hparams(self.config, final):
            self._write(Event(summary=summary))
        for name, value in final.items():
            self._write(Event(summary=scalar(name, value)))

    def close(self, *, failed: bool) -> None:
        """Close the file."""
        self.records.close()

    def _write(self, event: Event) -> None:
        event.wall_time = time.time()
        self.records.write(event.SerializeToString())
