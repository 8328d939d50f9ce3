"""Reads the weights of an adapter from its folder, checked against the base model, without PEFT's layers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig
from peft.tuners.tuners_utils import check_target_module_exists
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from finetune.errors import ArtifactError, CheckFailedError, InputError
from finetune.models.effect import explain_no_effect
from finetune.models.quantize import unpack_weight
from finetune.models.targets import match_pattern

PREFIX = "base_model.model."
LINEAR = (".lora_A.weight", ".lora_B.weight")
EMBEDDING = (".lora_embedding_A", ".lora_embedding_B")
MAGNITUDE = ".lora_magnitude_vector"
# Settings of PEFT that change what an adapter computes in ways that are not known here.
UNKNOWN = (
    *("lora_bias", "trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens"),
    *("use_qalora", "use_bdlora", "kasa_config", "arrow_config", "velora_config"),
)


@dataclass(frozen=True, slots=True)
class Update:
    """What an adapter adds to the result of a layer: x downᵀ up. With DoRA, the sum of both is multiplied by `gain`.

    Args:
        down: (rank, in features); of an embedding, (rank, tokens).
        up: (rank, out features), multiplied by the scale of the update.
        gain: (out features,); a bias is not multiplied.
    """

    down: Tensor
    up: Tensor
    gain: Tensor | None = None


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """The updates of an adapter by the path of their layer, and the parameters of modules that were trained whole."""

    updates: Mapping[str, Update]
    saved: Mapping[str, Mapping[str, Tensor]]


def read_adapter(folder: Path, model: nn.Module) -> AdapterWeights:
    """The weights of the adapter in a folder, for a base model.

    Raises:
        ArtifactError: the files cannot be read, or their tensors do not fit the model.
        CheckFailedError: none of its tensors belongs to the model, or all updates are zero.
        InputError: the adapter is of a kind that cannot be computed beside others.
    """
    try:
        config = PeftConfig.from_pretrained(str(folder))
        tensors = load_file(folder / "adapter_model.safetensors")
    except (OSError, ValueError, TypeError, RuntimeError) as error:
        raise _misfit_error(folder, str(error).splitlines()[0]) from None
    _require_known(folder, config)
    assert isinstance(config, LoraConfig)
    stored = {name.removeprefix(PREFIX): tensor for name, tensor in tensors.items()}
    shapes = _expected_shapes(config, model)
    if stored.keys().isdisjoint(shapes):
        raise CheckFailedError(
            f"The adapter at {folder} changes nothing: none of its {len(stored)} tensors belongs to a layer of its base model. "
            "Train again on this base model, or name the one that it was trained on with --model"
        )
    if stored.keys() != shapes.keys():
        missing, unexpected = len(shapes.keys() - stored.keys()), len(stored.keys() - shapes.keys())
        raise _misfit_error(folder, f"{missing} tensors are missing and {unexpected} are unexpected")
    for name, tensor in stored.items():
        if tuple(tensor.shape) != shapes[name]:
            raise _misfit_error(folder, f"{name} has shape {tuple(tensor.shape)} instead of {shapes[name]}")
    device = next(model.parameters()).device
    weights = _assemble(config, model, {name: tensor.to(device) for name, tensor in stored.items()})
    _require_updates(folder, config, weights)
    return weights


def is_linear(module: nn.Module) -> bool:
    """Whether a module multiplies by a matrix: a plain or quantised linear layer."""
    return isinstance(module, (nn.Linear, Conv1D))


def _require_known(folder: Path, config: PeftConfig) -> None:
    settings: Any = config
    unknown = [name for name in UNKNOWN if getattr(settings, name, None)]
    if not isinstance(config, LoraConfig):
        unknown = [f"peft_type {config.peft_type}"]
    elif config.bias != "none":
        unknown.append("bias")
    if unknown:
        raise InputError(
            f"The adapter at {folder} cannot be served beside its base model, because it uses {', '.join(unknown)}. "
            "Merge it (slmtune merge) and serve the merged model"
        )


def _expected_shapes(config: LoraConfig, model: nn.Module) -> dict[str, tuple[int, ...]]:
    """The names of the tensors that the adapter should have, and their shapes."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path, module in model.named_modules():
        if _is_saved(config, path):
            shapes |= {f"{path}.{name}": tuple(each.shape) for name, each in module.named_parameters()}
            continue
        if not check_target_module_exists(config, path):
            continue
        rank = _rank(config, path)
        if isinstance(module, nn.Embedding):
            inside, outside, names = module.num_embeddings, module.embedding_dim, EMBEDDING
        elif is_linear(module):
            inside, outside, names = *_features(module), LINEAR
        else:
            continue
        shapes |= {path + names[0]: (rank, inside), path + names[1]: (outside, rank)}
        if config.use_dora:
            shapes[path + MAGNITUDE] = (outside,)
    return shapes


def _features(module: Any) -> tuple[int, int]:
    if isinstance(module, Conv1D):
        return int(module.weight.shape[0]), int(module.nf)
    return module.in_features, module.out_features


def _rank(config: LoraConfig, path: str) -> int:
    return match_pattern(config.rank_pattern or {}, path, config.r)


def _scale(config: LoraConfig, path: str) -> float:
    rank, alpha = _rank(config, path), match_pattern(config.alpha_pattern or {}, path, config.lora_alpha)
    return alpha / (math.sqrt(rank) if config.use_rslora else rank)


def _is_saved(config: LoraConfig, path: str) -> bool:
    return any(path.endswith(name) for name in config.modules_to_save or ())  # as PEFT has it: also norm of layernorm


def _assemble(config: LoraConfig, model: nn.Module, stored: Mapping[str, Tensor]) -> AdapterWeights:
    updates: dict[str, Update] = {}
    saved: dict[str, dict[str, Tensor]] = {}
    for path, module in model.named_modules():
        if _is_saved(config, path):
            saved[path] = {name: stored[f"{path}.{name}"] for name, _ in module.named_parameters()}
        for down, up in (LINEAR, EMBEDDING):
            if path + down in stored:
                scale = _scale(config, path) * float(getattr(module, "embed_scale", 1.0))
                update = Update(stored[path + down].float(), (stored[path + up].float() * scale).t().contiguous())
                magnitude = stored.get(path + MAGNITUDE)
                updates[path] = update if magnitude is None else _with_gain(update, module, magnitude)
    return AdapterWeights(updates, saved)


def _with_gain(update: Update, module: nn.Module, magnitude: Tensor) -> Update:
    """DoRA: the norm of each row of the weights becomes its magnitude (Liu et al., 2024, arXiv 2402.09353)."""
    weight = unpack_weight(module)
    weight = weight.t() if isinstance(module, Conv1D) else weight
    norms = torch.linalg.norm(weight.float() + (update.down.t() @ update.up).t(), dim=1)
    gain = magnitude.float() / norms
    return Update(update.down, update.up * gain, gain)


def _require_updates(folder: Path, config: LoraConfig, weights: AdapterWeights) -> None:
    """Refuse an adapter whose updates are all zero."""
    if weights.saved or any(update.down.any() and update.up.any() for update in weights.updates.values()):
        return
    reason = explain_no_effect(True, all(_scale(config, path) == 0 for path in weights.updates))
    raise CheckFailedError(f"The adapter at {folder} changes nothing. {reason}")


def _misfit_error(folder: Path, reason: str) -> ArtifactError:
    return ArtifactError(f"The adapter at {folder} does not fit its base model: {reason}")
