"""Writes an adapter as a GGUF file of its own, which llama.cpp adds to its base model."""

from __future__ import annotations

import functools
import math
from pathlib import Path

import gguf
import torch
from peft import LoraConfig, PeftConfig
from peft.utils.other import get_pattern_key
from safetensors import safe_open

from finetune.artifacts import Adapter
from finetune.errors import InputError
from finetune.models.gguf.families import Shape
from finetune.models.gguf.tensors import SUFFIXES, arrange, write_header, write_tensor

PREFIX, MATRICES = "base_model.model.", (".lora_A.weight", ".lora_B.weight")


def read_lora(adapter: Adapter, shape: Shape) -> LoraConfig:
    """The settings of an adapter that llama.cpp can add to its base model.

    Raises:
        InputError: the adapter has parts that llama.cpp does not have; names one.
    """
    config = PeftConfig.from_pretrained(str(adapter.path))
    assert isinstance(config, LoraConfig)
    with safe_open(adapter.path / "adapter_model.safetensors", framework="pt") as tensors:
        keys = list(tensors.keys())
    other = next((key for key in keys if not key.endswith(MATRICES)), None)
    reason = (
        "it is a DoRA adapter"
        if config.use_dora
        else "it corrects the quantised weights of its base model (LoftQ)"
        if adapter.config.get("init_lora_weights") == "loftq"
        else f"it has more than the two matrices of LoRA ({other})"
        if other
        else next((f"it changes {key.removeprefix(PREFIX)}" for key in keys if _name(key, shape) is None), None)
    )
    if reason:
        raise InputError(
            f"llama.cpp cannot add {adapter.path} to its base model: {reason}. Merge first: slmtune merge, or slmtune export "
            "--format gguf"
        )
    return config


def read_matrices(adapter: Adapter, config: LoraConfig, shape: Shape) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """What an adapter adds to the product of each weight, by its name in llama.cpp: x downᵀ up.

    Returns:
        (rank, in features) and (rank, out features), which is multiplied by the scale of the adapter; in 32 bits.
    """
    updates = {}
    with safe_open(adapter.path / "adapter_model.safetensors", framework="pt") as tensors:
        for key in [key for key in tensors.keys() if key.endswith(MATRICES[0])]:  # noqa: SIM118 it is no dict
            other = key.removesuffix(MATRICES[0]) + MATRICES[1]
            down, up = tensors.get_tensor(key).float(), tensors.get_tensor(other).float()
            up = _matrix(up, other, config, shape) * (config.lora_alpha / up.shape[1])
            updates[str(_name(key, shape)).removesuffix(".lora_a")] = (down, up.t().contiguous())
    return updates


def write_lora(adapter: Adapter, config: LoraConfig, shape: Shape, out: Path) -> None:
    """Write the matrices of an adapter in 32 bits, as they were trained."""
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[shape.family.arch])
    try:
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, float(config.lora_alpha))
        with safe_open(adapter.path / "adapter_model.safetensors", framework="pt") as tensors:
            keys = sorted(tensors.keys())
            data = {_name(key, shape): _matrix(tensors.get_tensor(key), key, config, shape) for key in keys}
        write_header(writer, [(str(name), tuple(matrix.shape), "f32") for name, matrix in data.items()])
        for matrix in data.values():
            write_tensor(writer, matrix, "f32")
    finally:
        writer.close()


def _matrix(matrix: torch.Tensor, key: str, config: LoraConfig, shape: Shape) -> torch.Tensor:
    """A matrix as llama.cpp expects it, which multiplies the product of the two by alpha / rank."""
    if key.endswith(MATRICES[0]):
        return matrix
    module = key.removeprefix(PREFIX).removesuffix(MATRICES[1])
    pattern = config.alpha_pattern or {}
    alpha = pattern.get(get_pattern_key(list(pattern), module), config.lora_alpha)
    root = math.sqrt(matrix.shape[1]) if config.use_rslora else 1.0
    return arrange(matrix * (alpha * root / config.lora_alpha), key, shape)


def _name(key: str, shape: Shape) -> str | None:
    """The name in llama.cpp of a matrix; None if llama.cpp does not add to that weight."""
    for matrix, suffix in zip(MATRICES, (".lora_a", ".lora_b"), strict=True):
        if key.endswith(matrix):
            weight = key.removeprefix(PREFIX).removesuffix(matrix) + ".weight"
            name = _names(shape.family.arch, shape.config.num_hidden_layers).get_name(weight, try_suffixes=SUFFIXES)
            return None if name is None or not name.startswith("blk.") else name + suffix
    return None


@functools.lru_cache(maxsize=4)  # building the map takes longer than writing a small adapter
def _names(arch: gguf.MODEL_ARCH, layers: int) -> gguf.TensorNameMap:
    """The names in llama.cpp of the tensors of an architecture."""
    return gguf.get_tensor_name_map(arch, layers)
