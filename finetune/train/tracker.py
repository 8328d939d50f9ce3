"""Logs to Weights & Biases if the recipe requests it: online, or to a local folder with `WANDB_MODE=offline`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.recipe import AdapterRecipe
from finetune.train.progress import Outcome


@contextmanager
def open_run(recipe: AdapterRecipe, folder: Path) -> Iterator[Callable[[Outcome], None]]:
    """Open a run to which the Trainer's callback logs, and yield a function that adds the final figures."""
    if recipe.report_to != "wandb":
        yield lambda outcome: None
        return
    import wandb  # by far the slowest import here, and few runs use it

    directory = Path(os.environ.get("WANDB_DIR") or folder.parent)
    directory.mkdir(parents=True, exist_ok=True)
    config = recipe.model_dump(mode="json")
    session = wandb.init(project=os.environ.get("WANDB_PROJECT", "slmtune"), dir=str(directory), config=config)

    def finish(outcome: Outcome) -> None:
        session.summary.update(
            {
                "steps": outcome.steps,
                "train_loss": outcome.train_loss,
                "eval_loss": outcome.eval_loss,
                "tokens": outcome.counts.tokens,
                "supervised_tokens": outcome.counts.supervised_tokens,
                "tokens_per_second": outcome.tokens_per_second,
            }
        )

    try:
        yield finish
    except BaseException:
        session.finish(exit_code=1)
        raise
    session.finish()
