"""Configurations of accelerate that divide a base model among GPUs, for one that does not fit on a single GPU.

slmtune keeps the whole base model in each process, so such a training is handed over to TRL: same corpus, same base model,
an adapter in the same format. Neither configuration has been run by the authors; a test parses them with accelerate's own
classes.
"""

from __future__ import annotations

from typing import Any

from finetune.plan.cluster.machines import PORT, Cluster
from finetune.plan.device import Device
from finetune.plan.memory import estimate, full_batch
from finetune.plan.model_shape import ModelShape
from finetune.recipe import AdapterRecipe


def sharded_bytes(shape: ModelShape, recipe: AdapterRecipe, device: Device, size: int) -> int:
    """About how much memory each of `size` GPUs needs if they share the base model, in bytes.

    Each has its share of the weights and, while it computes a block, the whole block; everything else is as on one GPU.
    """
    whole = estimate(shape, recipe, full_batch(recipe), device)
    return whole.needed - whole.weights + whole.weights // size + whole.weights // shape.layers


def fsdp2(cluster: Cluster, *, checkpointing: bool) -> dict[str, Any]:
    """The configuration for PyTorch's FSDP2. `rank` of a machine is given on the command line."""
    return _common(cluster) | {
        "distributed_type": "FSDP",
        "fsdp_config": {
            "fsdp_version": 2,
            "fsdp_auto_wrap_policy": "TRANSFORMER_BASED_WRAP",
            "fsdp_reshard_after_forward": True,
            "fsdp_activation_checkpointing": checkpointing,
            "fsdp_cpu_ram_efficient_loading": False,  # accelerate 1.15 does without it if weights have 4 bits
            "fsdp_offload_params": False,
            "fsdp_state_dict_type": "FULL_STATE_DICT",
        },
    }


def deepspeed(cluster: Cluster) -> dict[str, Any]:
    """The configuration for DeepSpeed's ZeRO-3, which needs the package deepspeed."""
    return _common(cluster) | {
        "distributed_type": "DEEPSPEED",
        "deepspeed_config": {
            "deepspeed_multinode_launcher": "standard",
            "zero_stage": 3,
            "zero3_init_flag": True,
            "zero3_save_16bit_model": True,
            "offload_optimizer_device": "none",
            "offload_param_device": "none",
        },
    }


def _common(cluster: Cluster) -> dict[str, Any]:
    return {
        "compute_environment": "LOCAL_MACHINE",
        "mixed_precision": "bf16",
        "num_machines": len(cluster.hosts),
        "num_processes": cluster.size,
        "machine_rank": 0,
        "main_process_ip": cluster.hosts[0],
        "main_process_port": PORT,
        "main_training_function": "main",
        "rdzv_backend": "static",
        "same_network": True,
        "use_cpu": False,
    }
