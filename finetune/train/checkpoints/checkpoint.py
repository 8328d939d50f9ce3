"""Checkpoints: everything that a run needs to resume, each written whole or not at all and verified before use.

They are kept next to the adapter, in `OUTPUT_DIR.checkpoints/checkpoint-STEP/`, and removed once it is complete.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from finetune.artifacts import Artifact, ArtifactWriter, write_aside
from finetune.errors import ArtifactError, InputError
from finetune.recipe import AdapterRecipe

log = logging.getLogger(__name__)

PREFIX = "checkpoint-"
WEIGHTS, OPTIMIZER, SCHEDULER, RANDOM = "weights.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth"
BEST = "best.safetensors"  # the weights of the best evaluation, if those of the checkpoint are not
STATE, PROGRESS, JOURNAL = "trainer_state.json", "progress.json", "training.jsonl"
OBJECTIVE = "objective.safetensors"  # if the objective has something to remember
FILES = frozenset({WEIGHTS, OPTIMIZER, SCHEDULER, RANDOM, STATE, PROGRESS, JOURNAL})

DIVISION = ("per_device_train_batch_size", "gradient_accumulation_steps")  # how an optimizer step is divided


class Checkpoint(Artifact):
    """The state of a run after an optimizer step."""

    kind = "checkpoint"
    made_by = "slmtune train --resume"

    @classmethod
    def open(cls, path: Path, *, command: str | None = None) -> Self:
        """Read and verify a checkpoint; every file of `FILES` must be there, whatever the manifest lists."""
        checkpoint = super().open(path, command=command)
        if missing := sorted(FILES - set(checkpoint.manifest["files"])):
            raise ArtifactError(f"{path} is damaged: {missing[0]} is missing. Make it again with: {cls.made_by}")
        return checkpoint

    def restore_batch(self, recipe: AdapterRecipe) -> AdapterRecipe:
        """The recipe with its batch divided as before, unless its own division has changed since.

        A new division, for other free memory, would round differently.
        """
        if any(self.manifest["config"][name] != getattr(recipe, name) for name in DIVISION):
            return recipe
        return recipe.model_copy(update=self.manifest["machine"]["batch"])

    def tracked_run(self, tracker: str) -> str | None:
        """Id of the run at a tracker; None if it was logged to another one or to none."""
        run: str | None = self.manifest["machine"].get("tracked_run")
        return run if self.manifest["config"]["report_to"] == tracker else None


class Checkpoints:
    """The checkpoints of one run. The owner of this object holds the lock of the folder."""

    def __init__(
        self, folder: Path, limit: int, lineage: dict[str, Any], resume_command: str = Checkpoint.made_by
    ) -> None:
        self.folder, self.limit, self.lineage, self.resume_command = folder, limit, lineage, resume_command

    def record_batch(self, recipe: AdapterRecipe) -> None:
        """Record in all further checkpoints how the batch is divided, for `Checkpoint.restore_batch`."""
        self.record(batch={name: getattr(recipe, name) for name in DIVISION})

    def record(self, **facts: Any) -> None:
        """Record facts about this machine's run in all further checkpoints."""
        self.lineage = self.lineage | {"machine": self.lineage["machine"] | facts}

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint with valid checksums, or None; newer, damaged ones are reported and removed.

        Raises:
            InputError: there are checkpoints, but all of them are damaged.
        """
        paths = list_checkpoints(self.folder)
        damaged: list[InputError] = []
        for path in paths:
            try:
                checkpoint = Checkpoint.open(path)
            except InputError as error:
                damaged.append(error)
                continue
            for problem in damaged:
                log.warning("%s. Resuming from the checkpoint before it, %s.", problem, path.name)
            for newer in paths[: len(damaged)]:
                _remove(newer)
            return checkpoint
        if damaged:
            raise InputError(
                f"No checkpoint in {self.folder} can be used ({damaged[0]}). Start again with --overwrite and without --resume"
            )
        return None

    def write(self, step: int, fill: Callable[[Path], None]) -> None:
        """Add a checkpoint, whose files `fill` writes to the given folder, then drop those above the limit."""
        with write_aside(self.folder / f"{PREFIX}{step}", sync=True) as staging:
            staging.mkdir()
            fill(staging)
            writer = ArtifactWriter(staging, Checkpoint)
            writer.manifest |= self.lineage
            writer.finish()
        self.drop_all_but(self.limit)

    def drop_all_but(self, count: int) -> None:
        """Remove all but the newest `count` checkpoints."""
        for path in list_checkpoints(self.folder)[count:]:
            _remove(path)

    def remove_leftovers(self) -> None:
        """Remove whatever a killed process was writing or removing."""
        for path in self.folder.glob(f".{PREFIX}*"):
            shutil.rmtree(path, ignore_errors=True)


def folder_of(out: Path) -> Path:
    """The folder for the checkpoints of a run whose adapter goes to `out`."""
    out = Path(os.path.abspath(out))
    return out.parent / f"{out.name}.checkpoints"


def list_checkpoints(folder: Path) -> list[Path]:
    """Checkpoint folders in `folder`, newest first, unverified."""
    return sorted((path for path in folder.glob(f"{PREFIX}*") if step_of(path) >= 0), key=step_of, reverse=True)


def step_of(path: Path) -> int:
    """The optimizer step in the name of a checkpoint folder; -1 if it is not a checkpoint folder."""
    number = path.name.removeprefix(PREFIX)
    return int(number) if number.isdecimal() and path.is_dir() else -1


def _remove(path: Path) -> None:
    old = path.with_name(f".{path.name}.old")  # rename first: a kill in between must not leave half a checkpoint
    shutil.rmtree(old, ignore_errors=True)
    os.replace(path, old)
    shutil.rmtree(old, ignore_errors=True)
