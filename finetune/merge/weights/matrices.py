"""The contents of an adapter: the matrices of each layer, and the tensors that it replaces whole."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig, PeftModel, get_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from torch import Tensor
from transformers import PreTrainedModel

from finetune.errors import ArtifactError, InputError
from finetune.models.structure import has_transposed_weights
from finetune.models.tensor_file import list_tensors
from finetune.recipe import AdapterRecipe

WAYS = ("use_rslora", "use_dora")  # that change how the matrices are multiplied
PREFIX, NAME = "base_model.model.", "default"
# Settings of PEFT that add something other than matrices of a layer, or tensors that replace those of the base.
UNSUPPORTED = (
    *("trainable_token_indices", "target_parameters", "layer_replication", "alora_invocation_tokens", "lora_bias"),
    *("use_bdlora", "arrow_config", "velora_config", "monteclora_config", "kasa_config", "use_qalora"),
)


@dataclass(frozen=True)
class Matrices:
    """The matrices of one layer, in float32: its weight becomes `W + scale · B A`, of DoRA with rows of learned norms."""

    a: Tensor  # (rank, in features)
    b: Tensor  # (out features, rank)
    scale: float
    is_transposed: bool  # the weight is (in features, out features), as in GPT-2 and in embeddings
    is_embedding: bool = False
    magnitude: Tensor | None = None  # (out features,), of DoRA

    def fold(self, weight: Tensor) -> Tensor:
        """The weight with the adapter folded in; both are float32, and the memory of `weight` is used for it."""
        update = self._orient((self.b @ self.a).mul_(self.scale))
        if self.magnitude is None:
            return weight.add_(update)
        norms = torch.linalg.norm(self._orient(weight) + self._orient(update), dim=1)
        return self._orient((self.magnitude / norms).view(-1, 1)) * (weight + update)

    def _orient(self, weight: Tensor) -> Tensor:
        return weight.t() if self.is_transposed else weight


@dataclass(frozen=True)
class AdapterWeights:
    """The matrices by the path of their layer, and the tensors that are replaced by their name in the model."""

    matrices: Mapping[str, Matrices]
    whole: Mapping[str, Tensor]


def attach_layers(model: PreTrainedModel, folder: Path) -> tuple[PeftModel, dict[str, Tensor]]:
    """PEFT's layers over a model without memory for its weights, and the adapter's own tensors by their name.

    Raises:
        ArtifactError: the adapter's tensors are not those that PEFT expects for the model, or not finite.
        InputError: the adapter has parts that cannot be folded into weights.
    """
    file, problem = folder / "adapter_model.safetensors", f"The adapter at {folder} does not fit its base model"
    try:
        config: Any = PeftConfig.from_pretrained(str(folder), inference_mode=True)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ArtifactError(f"{folder / 'adapter_config.json'} cannot be read: {str(error).splitlines()[0]}") from None
    if parts := [name for name in UNSUPPORTED if getattr(config, name, None)]:
        raise InputError(
            f"The adapter at {folder} has {', '.join(parts)} in its adapter_config.json, which cannot be folded into weights. "
            "Serve the adapter itself: slmtune serve"
        )
    if not file.is_file():
        raise ArtifactError(f"The adapter at {folder} has no {file.name}; slmtune does not load pickled weights")
    config.fan_in_fan_out = has_transposed_weights(model)
    config.base_model_name_or_path = None
    try:
        adapted = PeftModel(model, config, NAME, low_cpu_mem_usage=True)
    except ValueError as error:  # no such module
        raise ArtifactError(f"{problem}: {str(error).splitlines()[0]}") from None
    stored = list_tensors(file)
    expected: dict[str, Tensor] = get_peft_model_state_dict(adapted, save_embedding_layers=False)
    shapes = {name: tuple(tensor.shape) for name, tensor in expected.items()}
    if names := sorted(
        name
        for name in {*stored, *shapes}
        if name not in stored or name not in shapes or stored[name].form.shape != shapes[name]
    ):
        raise ArtifactError(
            f"{problem}: {len(names)} tensors are missing, unexpected or of another shape, such as {names[0]}. Get the adapter "
            "again, or train again"
        )
    tensors = {name: one.read() for name, one in stored.items()}
    if broken := [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]:
        raise ArtifactError(
            f"The adapter at {folder} is broken: {broken[0]} has numbers that are not finite. Train again"
        )
    return adapted, tensors


def require_trained_scale(folder: Path, recipe: AdapterRecipe) -> None:
    """Refuse an adapter whose adapter_config.json multiplies the matrices by something else than training did.

    Raises:
        ArtifactError: names both.
    """
    file = folder / "adapter_config.json"
    try:
        config = json.loads(file.read_text("utf-8"))
        scale = config["lora_alpha"] / config["r"]
        ways = [bool(config.get(name)) for name in WAYS]
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ZeroDivisionError):
        raise ArtifactError(f"{file} cannot be read. Get the adapter again, or train again") from None
    if scale != recipe.lora_alpha / recipe.lora_r or ways != [getattr(recipe, name) for name in WAYS]:
        raise ArtifactError(
            f"{file} says lora_alpha {config['lora_alpha']} for rank {config['r']}, but the adapter was trained with "
            f"{recipe.lora_alpha} for rank {recipe.lora_r} ({', '.join(WAYS)} must be as in training, too). Get the adapter "
            "again, or train again"
        )


def read_weights(model: PreTrainedModel, folder: Path) -> AdapterWeights:
    """The weights of the adapter in a folder. For `model` and for exceptions, see `attach_layers`."""
    adapted, stored = attach_layers(model, folder)
    matrices = {}
    for name, layer in adapted.named_modules():
        if isinstance(layer, LoraLayer) and NAME in layer.scaling:
            matrices[name.removeprefix(PREFIX)] = _matrices(name, layer, stored)
    whole = {
        name.removeprefix(PREFIX).replace(".base_layer.", "."): tensor
        for name, tensor in stored.items()
        if ".lora_" not in name
    }
    return AdapterWeights(matrices, whole)


def _matrices(name: str, layer: Any, stored: Mapping[str, Tensor]) -> Matrices:
    is_embedding = NAME in layer.lora_embedding_A
    parts = ("lora_embedding_A", "lora_embedding_B") if is_embedding else ("lora_A.weight", "lora_B.weight")
    a, b = (stored[f"{name}.{part}"].float() for part in parts)
    magnitude = stored.get(f"{name}.lora_magnitude_vector")
    return Matrices(
        a,
        b,
        scale=float(layer.scaling[NAME]),
        is_transposed=is_embedding or bool(layer.fan_in_fan_out),
        is_embedding=is_embedding,
        magnitude=None if magnitude is None else magnitude.float(),
    )
