"""Says what to do about full memory in training, whichever library runs into it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from finetune.errors import MemoryFullError
from finetune.machine import device_name, is_out_of_memory
from finetune.train.checkpoints.checkpoint import list_checkpoints, step_of


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
