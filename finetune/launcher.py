"""The place that a launcher (torchrun or accelerate launch) gives a process of a training, from its variables."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from finetune.errors import InputError

RANK, SIZE, LOCAL_RANK, LOCAL_SIZE = "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"
GPUS = "CUDA_VISIBLE_DEVICES"
ACCELERATE = "ACCELERATE_DYNAMO_BACKEND"  # set by accelerate launch, whatever its configuration
SHARDED = {"ACCELERATE_USE_FSDP": "FSDP", "ACCELERATE_USE_DEEPSPEED": "DeepSpeed"}


@dataclass(frozen=True)
class Place:
    """The number of a process among all of a training and among those of its machine."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    variables: Mapping[str, str]  # with which the processes find each other

    @contextmanager
    def announced(self) -> Iterator[None]:
        """With the variables of the launcher, which are hidden otherwise."""
        os.environ.update(self.variables)
        try:
            yield
        finally:
            _hide()


_taken: list[Place] = []


def take_place(num_processes: int | None = None) -> Place | None:
    """The place of this process; None if no launcher has started it, or only this one.

    From the first call on, the variables are hidden from libraries, which would otherwise distribute the training in their
    own way, and this process sees only its own GPU. It must come before torch uses one.

    Raises:
        InputError: the launcher has started another number of processes than `num_processes`, or shards the model.
    """
    for name, kind in SHARDED.items():
        if os.environ.get(name, "false").lower() in ("true", "1"):
            raise InputError(
                f"accelerate is configured for {kind}, which divides the base model among the processes, but slmtune train "
                "keeps a whole one in each. Use a configuration with distributed_type MULTI_GPU, or torchrun; for a model that "
                "does not fit on one GPU, slmtune train --print-launch prints commands that train it with TRL"
            )
    if not _taken and RANK in os.environ and SIZE in os.environ:
        _taken.append(_read())
    started = _taken[0].size if _taken else 1
    if num_processes not in (None, started) and (_taken or ACCELERATE in os.environ):
        hint = (
            ""
            if _taken
            else " accelerate launch starts one process unless it is configured (accelerate config) or told to;"
        )
        raise InputError(
            f"--num-processes {num_processes} does not fit the launcher, which has started {started}.{hint} Give the number to "
            "the launcher (--nproc-per-node of torchrun; --multi_gpu --num_processes of accelerate launch), or leave out the "
            "launcher: slmtune starts the processes of one machine itself"
        )
    return _taken[0] if started > 1 else None


def _read() -> Place:
    rank, size, local_rank, local_size = (
        int(os.environ.get(name, "0")) for name in (RANK, SIZE, LOCAL_RANK, LOCAL_SIZE)
    )
    names = (RANK, SIZE, LOCAL_RANK, LOCAL_SIZE, "MASTER_ADDR", "MASTER_PORT")
    variables = {name: os.environ[name] for name in names if name in os.environ}
    place = Place(rank, size, local_rank, local_size, variables)
    _hide()
    if visible := gpus_of(place.local_rank, place.local_size):
        os.environ[GPUS] = visible
    return place


def gpus_of(local_rank: int, local_size: int) -> str | None:
    """What CUDA_VISIBLE_DEVICES must be for a process to see a GPU of its own; None if it sees one or none anyway."""
    visible = os.environ.get(GPUS)
    gpus = visible.split(",") if visible is not None else [str(number) for number in range(local_size)]
    return gpus[local_rank] if len(gpus) > 1 and local_rank < len(gpus) else None


def _hide() -> None:
    for name in (RANK, SIZE, LOCAL_RANK, LOCAL_SIZE):
        os.environ.pop(name, None)
