"""The commands that start a training on the machines of a cluster, and the configurations that they need."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import yaml

from finetune.errors import InputError
from finetune.machine import format_bytes
from finetune.models.presets import find_preset
from finetune.plan.cluster.machines import PORT, Cluster
from finetune.plan.cluster.sharded import deepspeed, fsdp2, sharded_bytes
from finetune.plan.device import Device
from finetune.plan.model_shape import ModelShape
from finetune.plan.run import divide_to_fit, plan
from finetune.plan.shapes import shape_of
from finetune.recipe import AdapterRecipe
from finetune.storage.address import is_address

FILES = ("fsdp2.yaml", "deepspeed.yaml")


@dataclass(frozen=True)
class Launch:
    """How to start a training: one command per machine, by its name."""

    engine: Literal["slmtune", "trl"]
    reason: str  # for this engine
    peak_bytes: int  # of each GPU, about
    free_bytes: int  # of each GPU
    commands: Mapping[str, str]
    alternative: Mapping[str, str] = field(default_factory=dict)  # commands with DeepSpeed instead of FSDP2
    files: Mapping[str, dict[str, Any]] = field(default_factory=dict)  # configurations, by path


def plan_launch(
    recipe: AdapterRecipe,
    cluster: Cluster,
    device: Device,
    arguments: Sequence[str],
    corpus: Path | str,
    out: Path,
) -> Launch:
    """Decide how a recipe is trained on a cluster, from the model's config.json alone.

    Args:
        device: one GPU of the cluster.
        arguments: of this `slmtune train`, without --print-launch.
        corpus: which TRL reads in the place of slmtune.
        out: the folder of the adapter; configurations are put into `OUT.launch/`.

    Raises:
        InputError: a step has fewer rows than there are GPUs, or even a share of the base model does not fit.
    """
    if cluster.size > recipe.effective_batch:
        raise InputError(
            f"{cluster.size} GPUs share the rows of an optimizer step, which has {recipe.effective_batch}. Raise "
            "--per-device-train-batch-size or --gradient-accumulation-steps, or name fewer GPUs"
        )
    shape = shape_of(recipe.model, recipe.revision)
    recipe = recipe.for_model(shape.parameters, shape.context)
    for checkpointing in (recipe.gradient_checkpointing, True):
        candidate = recipe.model_copy(update={"gradient_checkpointing": checkpointing})
        planned = plan(divide_to_fit(candidate, device=device, shape=shape), device=device, shape=shape)
        if planned.fits:
            flags = ["--gradient-checkpointing"] if checkpointing and not recipe.gradient_checkpointing else []
            return Launch(
                "slmtune",
                "the base model fits on each GPU",
                planned.peak_bytes,
                device.free,
                _torchrun(cluster, [*arguments, *flags]),
            )
    return _hand_over(recipe, shape, cluster, device, corpus, out)


def write_files(launch: Launch) -> None:
    """Write the configurations."""
    for name, values in launch.files.items():
        path = Path(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(values, sort_keys=False), "utf-8")


def _torchrun(cluster: Cluster, arguments: Sequence[str]) -> dict[str, str]:
    common = ["torchrun", f"--nnodes={len(cluster.hosts)}", f"--nproc-per-node={cluster.gpus}"]
    address = [f"--master-addr={cluster.hosts[0]}", f"--master-port={PORT}"]
    return {
        host: shlex.join([*common, f"--node-rank={rank}", *address, "-m", "finetune", *arguments])
        for rank, host in enumerate(cluster.hosts)
    }


def _hand_over(
    recipe: AdapterRecipe, shape: ModelShape, cluster: Cluster, device: Device, corpus: Path | str, out: Path
) -> Launch:
    """The same training with TRL, each GPU with a share of the base model."""
    if shape.kind != "causal" or recipe.method != "sft" or recipe.quantization == "int8":
        raise InputError(
            f"{recipe.model} does not fit on one GPU, and what divides it among several trains answers of causal models only "
            "(--method sft), with --quantization nf4, fp4 or none. Use larger GPUs"
        )
    if is_address(corpus):
        raise InputError(
            f"{recipe.model} does not fit on one GPU, and TRL, which divides it among several, reads no corpus at {corpus}. "
            "Copy it to storage that all machines see, and give that folder with --corpus"
        )
    rows = math.ceil(recipe.effective_batch / cluster.size)
    single = recipe.model_copy(update={"per_device_train_batch_size": 1, "gradient_checkpointing": True})
    peak = sharded_bytes(shape, single, device, cluster.size)
    if peak > device.free:
        raise InputError(
            f"Even with the base model divided among {cluster.size} GPUs and one row per pass, each needs about "
            f"{format_bytes(peak)} and has {format_bytes(device.free)}. Use more or larger GPUs, or lower --max-length"
        )
    folder = out.with_name(f"{out.name}.launch")
    paths = [str(folder / name) for name in FILES]
    arguments = _trl_arguments(recipe, corpus, out, rows)
    return Launch(
        "trl",
        f"the base model does not fit on one GPU, so {cluster.size} GPUs share it",
        peak,
        device.free,
        _accelerate(cluster, paths[0], [*arguments, "--gradient_checkpointing=False"]),  # FSDP2's own instead
        _accelerate(cluster, paths[1], [*arguments, "--gradient_checkpointing=True"]),
        dict(zip(paths, (fsdp2(cluster, checkpointing=True), deepspeed(cluster)), strict=True)),
    )


def _accelerate(cluster: Cluster, file: str, arguments: Sequence[str]) -> dict[str, str]:
    command = ["accelerate", "launch", f"--config_file={file}"]
    return {
        host: shlex.join([*command, f"--machine_rank={rank}", "-m", "trl.scripts.sft", *arguments])
        for rank, host in enumerate(cluster.hosts)
    }


def _trl_arguments(recipe: AdapterRecipe, corpus: Path | str, out: Path, rows: int) -> list[str]:
    """The settings of a recipe in the words of TRL; `rows` of a step are each GPU's, one per forward pass."""
    settings: dict[str, Any] = {
        "model_name_or_path": preset.hub_id if (preset := find_preset(recipe.model)) else recipe.model,
        "model_revision": recipe.revision or "main",
        "dataset_name": corpus,
        "output_dir": out,
        "dtype": "bfloat16",
        "use_peft": True,
        "lora_r": recipe.lora_r,
        "lora_alpha": recipe.lora_alpha,
        "lora_dropout": recipe.lora_dropout,
        "per_device_train_batch_size": 1,
        "gradient_accumulation_steps": rows,
        "max_length": recipe.max_length,
        "learning_rate": recipe.learning_rate,
        "lr_scheduler_type": recipe.lr_scheduler_type,
        "warmup_steps": recipe.warmup_ratio,
        "weight_decay": recipe.weight_decay,
        "max_grad_norm": recipe.max_grad_norm,
        "num_train_epochs": recipe.num_train_epochs,
        "max_steps": recipe.max_steps or -1,
        "seed": recipe.seed,
        "assistant_only_loss": True,
        "report_to": recipe.report_to,
    }
    if recipe.is_quantized:  # stored as bfloat16, or the weights could not be divided
        settings |= {
            "load_in_4bit": True,
            "bnb_4bit_quant_type": recipe.quantization,
            "bnb_4bit_quant_storage": "bfloat16",
        }
    targets = [recipe.target_modules] if isinstance(recipe.target_modules, str) else recipe.target_modules
    flags = [f"--{name}={value}" for name, value in settings.items() if value is not None]
    return [*flags, "--lora_target_modules", *targets]
