"""Checks that checkpoints and adapter fit on the disk, before the run and before each checkpoint."""

from __future__ import annotations

import shutil
from pathlib import Path

from finetune.errors import DiskFullError, InputError
from finetune.machine import format_bytes
from finetune.train.checkpoints.checkpoint import Checkpoints

WEIGHT_BYTES, MOMENT_BYTES = 4, 8  # float32; AdamW keeps two float32 moments per weight, its 8-bit form fewer
CHECKPOINT_REST = 1 << 20  # random state, Trainer state, manifest
LINE_BYTES = 384  # of a line of the journal
ADAPTER_REST = 40 << 20  # tokenizer (Gemma's, the largest, has 34 MB), chat template, card, picture
THEN_RESUME = "then repeat the command with --resume"


def checkpoint_bytes(trainable: int, lines: int, *, with_best: bool) -> int:
    """Upper bound for the size of a checkpoint in bytes.

    Args:
        trainable: number of weights that training changes.
        lines: of the journal.
        with_best: whether it also has the weights of the best step.
    """
    copies = 2 if with_best else 1
    return trainable * (copies * WEIGHT_BYTES + MOMENT_BYTES) + lines * LINE_BYTES + CHECKPOINT_REST


def require_room(folder: Path, count: int, size: int, trainable: int) -> None:
    """Refuse a run whose adapter and checkpoints do not fit on the disk.

    Args:
        count: number of checkpoints, with the one being written.
        size: of a checkpoint in bytes.
        trainable: number of weights of the adapter.

    Raises:
        InputError: names the free and the needed space.
    """
    own = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
    needed = count * size + trainable * WEIGHT_BYTES + ADAPTER_REST
    free = shutil.disk_usage(folder).free + own
    if free < needed:
        raise InputError(
            f"{folder.parent} has {format_bytes(free)} free, but {count} checkpoints of "
            f"{format_bytes(size)} and the adapter need {format_bytes(needed)}. Free some space, "
            "choose another --output-dir, lower --save-total-limit (one more exists while it is being written), or "
            "write only one checkpoint, at the end, with --save-steps 0"
        )


def make_room(checkpoints: Checkpoints, step: int, needed: int) -> None:
    """Drop older checkpoints, but never the newest, if the next one, of `needed` bytes, would not fit.

    Raises:
        DiskFullError: it does not fit even then.
    """
    if shutil.disk_usage(checkpoints.folder).free < needed:
        checkpoints.drop_all_but(1)
    free = shutil.disk_usage(checkpoints.folder).free
    if free < needed:
        raise DiskFullError(
            f"There is no space for the checkpoint of step {step}: {format_bytes(free)} are free in "
            f"{checkpoints.folder.parent} and {format_bytes(needed)} are needed. Free some space, then resume with: "
            f"{checkpoints.resume_command}"
        )
