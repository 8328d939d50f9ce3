"""Logs to Weights & Biases: online, or to a local folder with `WANDB_MODE=offline`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from finetune.trackers.tracker import PROJECT


class WeightsAndBiases:
    """A run at Weights & Biases, which itself ignores steps that it already has."""

    def __init__(self, config: Mapping[str, Any], folder: Path, resumed: str | None) -> None:
        directory = Path(os.environ.get("WANDB_DIR") or folder)
        directory.mkdir(parents=True, exist_ok=True)
        self.session = wandb.init(
            project=os.environ.get("WANDB_PROJECT", PROJECT),
            dir=str(directory),
            config=dict(config),
            id=resumed,
            resume="allow" if resumed else None,
            settings=wandb.Settings(
                x_disable_meta=True,
                x_disable_stats=True,
                x_save_requirements=False,
                disable_git=True,
                disable_code=True,
                console="off",
                host="-",
            ),
        )
        self.id = self.session.id

    def log(self, figures: Mapping[str, float], step: int) -> None:
        """Log the figures of a step."""
        self.session.log(dict(figures), step=step)

    def finish(self, figures: Mapping[str, float], step: int) -> None:
        """Set the summary of the run."""
        self.session.summary.update(dict(figures))

    def close(self, *, failed: bool) -> None:
        """Wait until everything is sent or written.

        `finish` alone returns while the service of wandb still writes the offline log (seen in wandb 0.31: one log in
        seven was incomplete at that moment); `teardown` waits for the service.
        """
        self.session.finish(exit_code=1 if failed else 0)
        wandb.teardown()
