"""What the processes of a training exchange: small objects, and the sums of their gradients."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeVar

import torch
from torch import Tensor, distributed, nn

from finetune.errors import InputError, LostProcessError
from finetune.machine import is_out_of_memory

T = TypeVar("T")


class Ranks:
    """The processes of a training; every one of them must call the same methods in the same order.

    Each has the same rows, the same weights and the same state of the optimizer, and takes the same steps. They differ in
    the rows that they pass through the model, and in that only the first process writes and reports. A training in one
    process is the case `size` 1, in which nothing is exchanged.

    Args:
        rank: the number of this process, from 0.
        size: the number of processes.
    """

    def __init__(self, rank: int = 0, size: int = 1) -> None:
        self.rank, self.size = rank, size

    @property
    def is_first(self) -> bool:
        """Whether this process writes and reports."""
        return self.rank == 0

    def share(self, rows: list[int]) -> list[int]:
        """The rows of this process. Every `size`-th, so that rows ordered by length give shares of like length."""
        return rows[self.rank :: self.size]

    def gather(self, value: T) -> list[T]:
        """The values of all processes, in the order of their ranks.

        Raises:
            LostProcessError: another process has ended.
        """
        if self.size == 1:
            return [value]
        values: list[T] = [value] * self.size
        _exchange(lambda: distributed.all_gather_object(values, value))
        return values

    def from_first(self, value: T) -> T:
        """The value of the first process. Raises what `gather` raises."""
        return self.gather(value)[0]

    def sum_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """Give each parameter the sum of its gradients in all processes; a process without rows adds zeros.

        One exchange of all gradients at once: those of an adapter are a few megabytes, so that nothing is gained by starting
        while the backward pass still runs, as torch's DistributedDataParallel does. Nor need the processes have equal
        numbers of forward passes.
        """
        if self.size == 1:
            return
        gradients: dict[torch.dtype, list[Tensor]] = {}
        for parameter in parameters:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.setdefault(parameter.grad.dtype, []).append(parameter.grad)
        for same in gradients.values():
            _sum(same)


def _sum(tensors: list[Tensor]) -> None:
    """Give tensors of one dtype their sums over all processes."""
    flat = torch.cat([tensor.flatten() for tensor in tensors])
    _exchange(lambda: distributed.all_reduce(flat))
    for tensor, part in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
        tensor.copy_(part.view_as(tensor))


def _exchange(operation: Callable[[], object]) -> None:
    try:
        operation()
    except RuntimeError as error:  # of gloo and NCCL: the connection was closed, or nothing came for half an hour
        if is_out_of_memory(error):
            raise
        raise LostProcessError(
            "A process of the training has ended or does not answer, so the others have stopped. Its own output says why"
        ) from error


def join(store: distributed.Store | None, rank: int, size: int) -> Ranks:
    """Connect with the other processes: gloo on the CPU, NCCL between GPUs.

    Args:
        store: where they find each other; None: where the variables of the launcher say.

    Raises:
        InputError: something else in this process has connected it already.
    """
    if distributed.is_initialized():
        raise InputError(
            "This process belongs to a torch.distributed group already, as the workers of Ray Train do, but slmtune needs "
            "processes of its own: start torchrun in each worker, as examples/cluster/ray_train.py does"
        )
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, store=store, rank=rank, world_size=size)
    return Ranks(rank, size)


def leave() -> None:
    """Close the connections."""
    distributed.destroy_process_group()
