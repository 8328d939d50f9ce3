"""Trains on the machines of a Ray cluster: python examples/cluster/ray_train.py MACHINES GPUS train --domain finance …

Ray Train places one worker on each machine, which starts torchrun for its GPUs: slmtune wants a fresh process per GPU. Not run
on GPUs by the authors of slmtune; README.md says what was checked.
"""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

# Ray has prepared the worker for torch itself; torchrun prepares its own processes.
HIDDEN = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "NODE_RANK", "ACCELERATE_TORCH_DEVICE")
PORT = 29500


def torchrun(machines: int, processes: int, rank: int, first: str, arguments: list[str]) -> list[str]:
    """The command of one machine."""
    torch = [sys.executable, "-m", "torch.distributed.run", f"--nnodes={machines}", f"--nproc-per-node={processes}"]
    address = [f"--node-rank={rank}", f"--master-addr={first}", f"--master-port={PORT}"]
    return [*torch, *address, "-m", "finetune", *arguments]


def train_on_machine(config: dict[str, Any]) -> None:
    """Start the processes of this worker's machine, and fail if they do."""
    from ray import train

    context = train.get_context()
    command = torchrun(
        context.get_world_size(),
        config["processes"],
        context.get_world_rank(),
        os.environ["MASTER_ADDR"],
        config["arguments"],
    )
    environment = {name: value for name, value in os.environ.items() if name not in HIDDEN}
    subprocess.run(command, env=environment, cwd=config["folder"], check=True)


def main() -> None:
    """Read the numbers of machines and of GPUs in each (0: two processes on the CPU), and what slmtune gets."""
    from ray.train import ScalingConfig
    from ray.train.torch import TorchConfig, TorchTrainer

    machines, gpus, *arguments = sys.argv[1:]
    resources = {"GPU": int(gpus)} if int(gpus) else {"CPU": 2}
    trainer = TorchTrainer(
        train_on_machine,
        train_loop_config={"processes": int(gpus) or 2, "arguments": arguments, "folder": os.getcwd()},
        torch_config=TorchConfig(backend="gloo"),  # for Ray's own use
        scaling_config=ScalingConfig(
            num_workers=int(machines),
            use_gpu=bool(int(gpus)),
            resources_per_worker=resources,
            placement_strategy="STRICT_SPREAD",
        ),
    )
    trainer.fit()


if __name__ == "__main__":
    main()
