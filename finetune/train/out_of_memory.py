"""Recognises that memory is full, whichever library runs into it, and says what to do about it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import MemoryFullError
from finetune.machine import device_name
from finetune.train.checkpoints.checkpoint import list_checkpoints, step_of

# How libraries say that an allocation has failed: torch on a CPU, then CUDA (bitsandbytes passes its message on) and cuBLAS.
FULL = ("can't allocate memory", "not enough memory", "out of memory", "cublas_status_alloc_failed")


def is_out_of_memory(error: Exception) -> bool:
    """Whether an allocation has failed, on the GPU or in main memory."""
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError":  # torch's, without importing torch
        return True
    return isinstance(error, RuntimeError) and any(reason in str(error).lower() for reason in FULL)


@contextmanager
def explain_full_memory(checkpoints: Path, resume_command: str) -> Iterator[None]:
    """Report in one paragraph that memory is full, wherever in the block an allocation fails.

    Args:
        checkpoints: the folder of the run's checkpoints.
        resume_command: how the run is resumed if there is a checkpoint.

    Raises:
        MemoryFullError: says what to change, and how to resume if there is a checkpoint.
    """
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        memory = "Memory" if device_name() == "cpu" else "The memory of the GPU"
        paths = list_checkpoints(checkpoints)
        way_out = (
            f"The last checkpoint is step {step_of(paths[0])} in {checkpoints}. Resume with: {resume_command}; "
            "--gradient-checkpointing may be added to it"
            if paths
            else "Add --gradient-checkpointing, lower --max-length, or choose a smaller base model"
        )
        raise MemoryFullError(
            f"{memory} is full, and a smaller batch does not help. End other programs that use it. {way_out}"
        ) from None
