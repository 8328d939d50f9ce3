"""Logs to Weights & Biases if the recipe requests it: online, or to a local folder with `WANDB_MODE=offline`."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.train.progress import Outcome


@dataclass(frozen=True)
class TrackedRun:
    """A run at Weights & Biases; without a session, a run that is not tracked."""

    session: Any = None  # a wandb.Run

    @property
    def id(self) -> str | None:
        """By which a resumed run continues this one; None if it is not tracked."""
        return self.session.id if self.session else None

    def log(self, line: Mapping[str, float]) -> None:
        """Log a line of `training.jsonl`; steps that a resumed run repeats are known already and ignored."""
        if self.session:
            names = {name: "eval/" + name[5:] if name.startswith("eval_") else f"train/{name}" for name in line}
            self.session.log({names[name]: value for name, value in line.items()}, step=int(line["step"]))

    def finish(self, outcome: Outcome) -> None:
        """Add the final figures."""
        if self.session:
            self.session.summary.update(
                {
                    "steps": outcome.steps,
                    "train_loss": outcome.train_loss,
                    **{f"eval_{name}": value for name, value in outcome.held_out.items()},
                    "tokens": outcome.counts.tokens,
                    "supervised_tokens": outcome.counts.supervised_tokens,
                    "tokens_per_second": outcome.tokens_per_second,
                }
            )


@contextmanager
def open_run(config: Mapping[str, Any], folder: Path, resumed: str | None) -> Iterator[TrackedRun]:
    """Open a run, or continue the one with the id `resumed`.

    Only the configuration and the figures are sent: no paths, names, command lines or output of this machine.
    """
    if config["report_to"] != "wandb":
        yield TrackedRun()
        return
    import wandb  # by far the slowest import here, and few runs use it

    directory = Path(os.environ.get("WANDB_DIR") or folder.parent)
    directory.mkdir(parents=True, exist_ok=True)
    session = wandb.init(
        project=os.environ.get("WANDB_PROJECT", "slmtune"),
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
    try:
        yield TrackedRun(session)
    except BaseException:
        session.finish(exit_code=1)
        raise
    session.finish()
