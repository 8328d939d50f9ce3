"""Writes the weights of a merged model shard by shard; finished shards survive a kill."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from finetune.artifacts import write_json
from finetune.errors import ArtifactError
from finetune.merge.weights.plan import Planned
from finetune.models.quantize import Rounding
from finetune.models.tensor_file import DTYPES, bytes_of, write_tensors

INDEX = "model.safetensors.index.json"


def write_weights(shards: Mapping[str, Sequence[Planned]], folder: Path, rounding: Rounding | None = None) -> None:
    """Write the shards that are not in the folder yet and, if there are several, their index.

    Args:
        rounding: what quantisation made of the base's weights; None: the adapter is merged onto the original ones.

    Raises:
        ArtifactError: a merged weight is not finite in the type in which it is stored.
    """
    for name, planned in shards.items():
        if not (folder / name).is_file():
            write_tensors(folder / name, [(one.form, _blocks(one, rounding)) for one in planned])
    if len(shards) > 1:
        places = {one.form.name: name for name, planned in shards.items() for one in planned}
        size = sum(one.form.size for planned in shards.values() for one in planned)
        write_json(folder / INDEX, {"metadata": {"total_size": size}, "weight_map": places})


def _blocks(planned: Planned, rounding: Rounding | None) -> Iterable[bytes | memoryview]:
    """The bytes of a tensor, made when they are asked for."""
    if (merged := merge_tensor(planned, rounding)) is not None:
        yield bytes_of(merged)
    elif planned.base is not None:
        yield from planned.base.blocks()


def merge_tensor(planned: Planned, rounding: Rounding | None) -> Tensor | None:
    """A tensor of the merged model in the type in which it is stored; None if it is the base's own.

    Raises:
        ArtifactError: it has numbers that are not finite.
    """
    merged = planned.whole
    if merged is None:
        assert planned.base is not None
        is_rounded = rounding is not None and planned.layer in rounding.layers
        if planned.matrices is None and not is_rounded:
            return None
        merged = planned.base.read().float()
        if rounding is not None and is_rounded:
            merged = rounding.apply(planned.layer, merged).float()
        if planned.matrices is not None:
            merged = planned.matrices.fold(merged)
    merged = merged.to(DTYPES[planned.form.dtype])
    if not all(torch.isfinite(end) for end in torch.aminmax(merged)):  # one pass, and NaN passes through
        raise ArtifactError(
            f"The merged weight {planned.form.name} has numbers that are not finite in {planned.form.dtype}, the type of the "
            "base model's weights. Serve the adapter itself, or train again with a lower --learning-rate"
        )
    return merged
