"""What one machine has for the processes of a training: cores and GPUs, of which each process gets its share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.errors import InputError
from finetune.launcher import GPUS, gpus_of
from finetune.recipe import AdapterRecipe
from finetune.train.ranks.group import Ranks
from finetune.workers import require_devices


def require_processes(recipe: AdapterRecipe, count: int, ranks: Ranks | None = None) -> None:
    """Refuse more processes than there are GPUs or, without a GPU, cores, and more than an optimizer step has rows.

    Args:
        count: to be started on this machine.
        ranks: if a launcher has started them, which knows its machines.

    Raises:
        InputError: says how many there may be.
    """
    if ranks is None:
        require_devices("--num-processes", count, ", or several machines: slmtune train --print-launch")
    else:
        count = ranks.size
    if count > recipe.effective_batch:
        raise InputError(
            f"{count} processes are more than the {recipe.effective_batch} rows of an optimizer step "
            "(--per-device-train-batch-size × --gradient-accumulation-steps), which they share. Use at most "
            f"--num-processes {recipe.effective_batch}, or raise one of these"
        )


@contextmanager
def limited_threads(count: int) -> Iterator[None]:
    """Let torch compute with `count` threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def own_gpu(rank: int, size: int) -> Iterator[None]:
    """Show a process that is started in the block one GPU only, the `rank`-th: slmtune uses the first that it sees."""
    before = os.environ.get(GPUS)
    if visible := gpus_of(rank, size):
        os.environ[GPUS] = visible
    try:
        yield
    finally:
        os.environ.pop(GPUS, None)
        if before is not None:
            os.environ[GPUS] = before
