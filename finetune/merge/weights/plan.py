"""Which tensors the merged model has, where each comes from, and in which file it goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, PreTrainedModel
from transformers.conversion_mapping import get_model_conversion_mapping
from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

from finetune.errors import InputError
from finetune.merge.weights.matrices import AdapterWeights, Matrices, read_weights
from finetune.models.find import weight_files
from finetune.models.heads import Head, build_skeleton
from finetune.models.tensor_file import Form, StoredTensor, list_tensors
from finetune.train.adapter_checks import find_tied

SHARD_BYTES = 4 * 10**9


@dataclass(frozen=True)
class Planned:
    """A tensor of the merged model: one of the base's, with matrices folded in, or one of the adapter's."""

    form: Form
    parameter: str  # its name in the model
    base: StoredTensor | None  # None: the adapter has it whole
    matrices: Matrices | None = None
    whole: Tensor | None = None

    @property
    def layer(self) -> str:
        """The path of the layer whose weight it is; empty if it is not one."""
        path, _, kind = self.parameter.rpartition(".")
        return path if kind == "weight" else ""


def plan_weights(base: Path, head: Head | None, adapter: Path) -> list[Planned]:
    """The tensors of the merged model, in the order of the base's files, with the types that they have there.

    A causal language model keeps the names of its base's files, whatever transformers makes of them. Those of an encoder are
    the names in the model: published encoders have other heads, and some no prefix.

    Raises:
        InputError: a file is damaged, or transformers makes a layer with matrices from several tensors.
        ArtifactError: the adapter does not fit the model.
    """
    weights = read_weights(build_skeleton(base, head), adapter)
    model = build_skeleton(base, head)
    names = {**name_parameters(base, model)}
    tied = [f"{path}.weight" for path in find_tied(model)]
    whole = {**weights.whole}
    for name in [name for name in tied if name in whole]:
        whole |= dict.fromkeys(tied, whole[name])
    known = set(model.state_dict())
    planned = []
    for stored, parameter in names.items():
        if head is None or parameter in known:
            name = stored.form.name if head is None else parameter
            planned.append(_plan(replace(stored.form, name=name), parameter, stored, weights, whole))
    given = {one.parameter for one in planned}
    dtype = AutoConfig.from_pretrained(base, local_files_only=True, trust_remote_code=False).dtype or torch.float32
    for name, tensor in whole.items():
        if name not in given and not (name in tied and given & set(tied)):
            planned.append(Planned(Form.of(name, dtype, tensor.shape), name, None, None, tensor))
    _require_all(weights, {one.parameter for one in planned}, model, head)
    return planned


def name_parameters(base: Path, model: PreTrainedModel) -> dict[StoredTensor, str]:
    """The name that transformers gives each tensor in the files of a base model; empty if it converts it.

    Raises:
        InputError: a file is damaged.
    """
    mapping = get_model_conversion_mapping(model)
    renamings = [one for one in mapping if isinstance(one, WeightRenaming)]
    converters = [one for one in mapping if isinstance(one, WeightConverter)]
    parameters: Any = model.state_dict()
    names = {}
    for file in weight_files(base):
        for name, stored in list_tensors(file).items():
            renamed, pattern = rename_source_key(name, renamings, converters, model.base_model_prefix, parameters)
            names[stored] = "" if pattern else renamed
    return names


def split_shards(planned: Sequence[Planned]) -> dict[str, list[Planned]]:
    """The tensors by the name of their file; a file has at most `SHARD_BYTES`, or one larger tensor."""

    def number() -> Iterator[int]:
        shard = size = 0
        for one in planned:
            if size and size + one.form.size > SHARD_BYTES:
                shard, size = shard + 1, 0
            size += one.form.size
            yield shard

    numbered = groupby(zip(number(), planned, strict=True), key=lambda pair: pair[0])
    shards = [[one for _, one in group] for _, group in numbered]
    if len(shards) == 1:
        return {"model.safetensors": shards[0]}
    return {f"model-{n:05}-of-{len(shards):05}.safetensors": shard for n, shard in enumerate(shards, 1)}


def _plan(
    form: Form, parameter: str, stored: StoredTensor, weights: AdapterWeights, whole: dict[str, Tensor]
) -> Planned:
    if parameter in whole:
        tensor = whole[parameter]
        return Planned(_resize(form, tensor), parameter, stored, None, tensor)
    planned = Planned(form, parameter, stored)
    return replace(planned, matrices=weights.matrices.get(planned.layer))


def _resize(form: Form, tensor: Tensor) -> Form:
    """The same type, with the shape of a tensor: a head for other classes is replaced by one of another shape."""
    item = form.size // max(1, torch.Size(form.shape).numel())
    return replace(form, shape=tuple(tensor.shape), size=tensor.numel() * item)


def _require_all(weights: AdapterWeights, given: set[str], model: PreTrainedModel, head: Head | None) -> None:
    lacking = [path for path in weights.matrices if f"{path}.weight" not in given]
    if lacking:
        raise InputError(
            f"{type(model).__name__} cannot be merged: {len(lacking)} layers with LoRA matrices, such as {lacking[0]}, are not "
            "stored as one tensor each in the files of the base model. Serve the adapter itself: slmtune serve"
        )
    tied = set(getattr(model, "_tied_weights_keys", None) or ())
    parameters = {name for name, _ in model.named_parameters()}
    if head is not None and (absent := sorted(parameters - given - tied)):
        raise InputError(
            f"{type(model).__name__} cannot be merged: {len(absent)} of its weights, such as {absent[0]}, are neither in the "
            "files of the base model nor in the adapter. Train again with the head that this model has"
        )
