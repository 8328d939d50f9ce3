"""What one machine has for the processes of a training: cores and GPUs, of which each process gets its share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from finetune.errors import InputError
from finetune.launcher import GPUS, gpus_of
from finetune.machine import count_cores
from finetune.recipe import AdapterRecipe
from finetune.train.ranks.group import Ranks


def require_processes(recipe: AdapterRecipe, count: int, ranks: Ranks | None = None) -> None:
    """Refuse more processes than there are GPUs or, without a GPU, cores, and more than an optimizer step has rows.

    Args:
        count: to be started on this machine.
        ranks: if a launcher has started them, which knows its machines.

    Raises:
        InputError: says how many there may be.
    """
    gpus = torch.cuda.device_count()
    available, kind = (gpus, "GPU") if gpus else (count_cores(), "CPU core")
    if ranks is not None:
        count = ranks.size
    elif count > available:
        raise InputError(
            f"--num-processes {count} is more than this machine has: {available} {kind}{'s' * (available != 1)}. Use at most "
            f"--num-processes {available}, or several machines: slmtune train --print-launch"
        )
    if count > recipe.effective_batch:
        raise InputError(
            f"{count} processes are more than the {recipe.effective_batch} rows of an optimizer step "
            "(--per-device-train-batch-size × --gradient-accumulation-steps), which they share. Use at most "
            f"--num-processes {recipe.effective_batch}, or raise one of these"
        )


def threads_of(processes: int) -> int:
    """The threads of each of the processes on this machine: its share of the cores, and no more than torch has now."""
    return max(1, min(torch.get_num_threads(), count_cores() // processes))


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
