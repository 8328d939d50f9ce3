"""The machines of a cluster, as a person writes them: `node1,node2:8` for eight GPUs in each."""

from __future__ import annotations

import re
from dataclasses import dataclass

from finetune.errors import InputError

PORT = 29500  # where the first machine waits for the others: the default of torchrun and accelerate


@dataclass(frozen=True)
class Cluster:
    """Machines by name, and the number of GPUs in each; the first one coordinates the others."""

    hosts: tuple[str, ...]
    gpus: int

    @property
    def size(self) -> int:
        """The number of all GPUs, and of processes."""
        return len(self.hosts) * self.gpus


def read_cluster(text: str) -> Cluster:
    """Parse the names of machines and the number of GPUs in each.

    Raises:
        InputError: `text` is not of that form.
    """
    match = re.fullmatch(r"([\w.-]+(?:,[\w.-]+)*):([1-9]\d*)", text)
    if match is None:
        raise InputError(
            f"--print-launch {text} does not name machines and their GPUs. Write, for two machines with eight GPUs each: "
            "--print-launch node1,node2:8"
        )
    return Cluster(tuple(match[1].split(",")), int(match[2]))
