"""Logs to Trackio's database on this machine: in `TRACKIO_DIR`, or where `trackio show` looks for it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from trackio.sqlite_storage import SQLiteStorage

from finetune.trackers.tracker import PROJECT


class Trackio:
    """A run in a project of Trackio.

    The lines go straight to the database, because `trackio.init` adds the name of the user, which it asks the Hub for.
    """

    def __init__(self, config: Mapping[str, Any], folder: Path, resumed: str | None) -> None:
        self.id = resumed or f"run-{secrets.token_hex(4)}"
        self.project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self.config = None if resumed else {**config, "_Created": datetime.now(UTC).isoformat()}

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log the figures of a step under a key, of which the database keeps the first."""
        key = f"{self.id}-{step}-{min(figures)}"
        SQLiteStorage.bulk_log(
            self.project, self.id, [dict(figures)], steps=[step], config=self.config, log_ids=[key], run_id=self.id
        )
        self.config = None  # from here on, the database has it

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """Log the final figures as those of the last step."""
        self.log({f"final/{name}": value for name, value in figures.items()}, step)

    def close(self, *, failed: bool) -> None:
        """Nothing: each line is on the disk already."""
