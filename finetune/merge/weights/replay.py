"""Reads every stored tensor back and compares it with what PEFT itself makes of base and adapter."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import PreTrainedModel

from finetune.errors import CheckFailedError
from finetune.merge.weights.matrices import NAME, PREFIX, attach_layers
from finetune.merge.weights.plan import Planned
from finetune.models.quantize import Rounding
from finetune.models.tensor_file import DTYPES, StoredTensor, list_tensors


@dataclass(frozen=True)
class Replay:
    """How many tensors were compared, and how many of them have matrices folded in. There was no mismatch."""

    tensors: int
    merged: int


def replay_weights(
    shards: Mapping[str, Sequence[Planned]],
    folder: Path,
    model: PreTrainedModel,
    adapter: Path,
    rounding: Rounding | None = None,
) -> Replay:
    """Compare the stored tensors, bit for bit, with those that PEFT's own layers make: one layer in memory at a time.

    Args:
        model: the base model, without memory for its weights; it is changed.

    Raises:
        CheckFailedError: a tensor is missing, unexpected, or has another number; names it.
    """
    adapted, tensors = attach_layers(model, adapter)
    layers: dict[str, Any] = {
        name.removeprefix(PREFIX): layer
        for name, layer in adapted.named_modules()
        if isinstance(layer, LoraLayer) and NAME in layer.scaling
    }
    count = 0
    for file, planned in shards.items():
        stored = list_tensors(folder / file)
        if set(stored) != {one.form.name for one in planned}:
            raise CheckFailedError(_message(f"{file} has other tensors than planned"))
        for one in planned:
            layer = layers.pop(one.layer, None) if one.whole is None else None
            if not _is_equal(stored[one.form.name], one, layer, tensors, rounding):
                raise CheckFailedError(_message(f"{one.form.name} is not what base and adapter give"))
            count += 1
    merged = sum(1 for planned in shards.values() for one in planned if one.matrices is not None)
    if layers:
        raise CheckFailedError(_message(f"the matrices of {next(iter(layers))} were left out"))
    return Replay(count, merged)


def _is_equal(
    stored: StoredTensor, planned: Planned, layer: Any, tensors: Mapping[str, Tensor], rounding: Rounding | None
) -> bool:
    is_rounded = rounding is not None and planned.layer in rounding.layers
    if planned.whole is not None:
        return torch.equal(stored.read(), planned.whole.to(DTYPES[stored.form.dtype]))
    assert planned.base is not None
    if layer is None and not is_rounded:
        return stored.form.dtype == planned.base.form.dtype and all(
            one == other for one, other in zip(stored.blocks(), planned.base.blocks(), strict=True)
        )
    weight = planned.base.read().float()
    if rounding is not None and is_rounded:
        weight = rounding.apply(planned.layer, weight).float()
    if layer is not None:
        weight = _merge_with_peft(layer, weight, f"{PREFIX}{planned.layer}", tensors)
    return torch.equal(stored.read(), weight.to(DTYPES[stored.form.dtype]))


def _merge_with_peft(layer: Any, weight: Tensor, name: str, tensors: Mapping[str, Tensor]) -> Tensor:
    """The weight after PEFT's layer has merged its adapter into it."""

    def fill(tensor: str) -> nn.Parameter:
        return nn.Parameter(tensors[f"{name}.{tensor}"].float(), requires_grad=False)

    if NAME in layer.lora_embedding_A:
        layer.lora_embedding_A[NAME], layer.lora_embedding_B[NAME] = fill("lora_embedding_A"), fill("lora_embedding_B")
    else:
        layer.lora_A[NAME].weight, layer.lora_B[NAME].weight = fill("lora_A.weight"), fill("lora_B.weight")
    if NAME in layer.lora_magnitude_vector:
        layer.lora_magnitude_vector[NAME].weight = fill("lora_magnitude_vector")
    base = layer.get_base_layer()
    base.weight = nn.Parameter(weight, requires_grad=False)
    layer.merge(safe_merge=True, adapter_names=[NAME])
    merged: Tensor = base.weight.data
    base.weight = nn.Parameter(torch.empty(merged.shape, device="meta"), requires_grad=False)
    return merged


def _message(problem: str) -> str:
    return (
        f"The merged weights are not those of the adapter: {problem}. Nothing was written. Merge again; if that fails too, "
        "serve the adapter itself: slmtune serve"
    )
