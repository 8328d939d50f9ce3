"""The weights of a model as the tensors of a GGUF file, read and written one at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import gguf
import numpy as np
import torch
from safetensors import safe_open

from finetune.errors import InputError
from finetune.models.find import weight_files
from finetune.models.gguf.families import Shape, rope_factors
from finetune.models.quantize import Rounding
from finetune.models.tensor_file import list_tensors

PRECISIONS = {
    "f32": (torch.float32, gguf.GGMLQuantizationType.F32),
    "f16": (torch.float16, gguf.GGMLQuantizationType.F16),
    "bf16": (torch.bfloat16, gguf.GGMLQuantizationType.BF16),
}
SUFFIXES = (".weight", ".bias")
BUFFERS = (".rotary_emb.inv_freq", ".masked_bias")  # that some checkpoints contain beside the weights


@dataclass(frozen=True)
class PlacedTensor:
    """A tensor in a file of weights, under its name in llama.cpp."""

    file: Path
    key: str
    name: str
    shape: tuple[int, ...]

    def load(self, shape: Shape, rounding: Rounding | None = None) -> torch.Tensor:
        """The tensor as llama.cpp expects it, perhaps rounded first."""
        with safe_open(self.file, framework="pt") as weights:
            tensor: torch.Tensor = weights.get_tensor(self.key)
        layer = self.key.removesuffix(".weight")
        if rounding is not None and layer in rounding.layers:
            tensor = rounding.apply(layer, tensor.float())
        return arrange(tensor, self.key, shape)


def arrange(tensor: torch.Tensor, key: str, shape: Shape) -> torch.Tensor:
    """A tensor, or the rows of one, as llama.cpp expects it: with pairs of rotated rows, and the whole weight of a norm."""
    family, config = shape.family, shape.config
    if family.norm_shift and key.endswith("norm.weight"):
        return tensor.float() + family.norm_shift
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    count = next((heads[part] for part in heads if f".{part}." in key), None)
    if count is None or not family.has_pairs:
        return tensor
    rows, *rest = tensor.shape
    return tensor.reshape(count, 2, rows // count // 2, *rest).swapaxes(1, 2).reshape(tensor.shape)


def place_tensors(folder: Path, shape: Shape) -> list[PlacedTensor]:
    """All tensors of the model in a folder, from the headers of its files.

    Raises:
        InputError: one has no place in the architecture of llama.cpp.
    """
    names = gguf.get_tensor_name_map(shape.family.arch, shape.config.num_hidden_layers)
    tensors = []
    for file in weight_files(folder):
        for key, stored in list_tensors(file).items():
            if key.endswith(BUFFERS) or (key == "lm_head.weight" and shape.config.tie_word_embeddings):
                continue
            name = names.get_name(key, try_suffixes=SUFFIXES)
            if name is None:
                raise InputError(
                    f"{file.name} in {folder} has a tensor that llama.cpp does not know: {key}. Export is not possible"
                )
            tensors.append(PlacedTensor(file, key, name, stored.form.shape))
    return tensors


def stored_precision(folder: Path) -> str:
    """The precision that keeps every weight in a folder as it is."""
    dtypes = {stored.form.dtype for file in weight_files(folder) for stored in list_tensors(file).values()}
    return {"F16": "f16", "BF16": "bf16"}.get(dtypes.pop(), "f32") if len(dtypes) == 1 else "f32"


def add_tensors(
    writer: gguf.GGUFWriter,
    tensors: list[PlacedTensor],
    shape: Shape,
    precision: str,
    rounding: Rounding | None = None,
) -> None:
    """Write the header and then every tensor; vectors, such as norms and biases, in 32 bits, as llama.cpp expects them."""
    factors = rope_factors(shape)
    first = [] if factors is None else [("rope_freqs.weight", tuple(factors.shape), "f32")]
    precisions = ["f32" if len(tensor.shape) == 1 else precision for tensor in tensors]
    rest = [(tensor.name, tensor.shape, kept) for tensor, kept in zip(tensors, precisions, strict=True)]
    write_header(writer, first + rest)
    if factors is not None:
        write_tensor(writer, factors, "f32")
    for tensor, kept in zip(tensors, precisions, strict=True):
        write_tensor(writer, tensor.load(shape, rounding), kept)


def write_header(writer: gguf.GGUFWriter, tensors: Sequence[tuple[str, tuple[int, ...], str]]) -> None:
    """Write the metadata, and the name, shape and precision of every tensor; the tensors follow in this order."""
    for name, shape, precision in tensors:
        dtype, stored = PRECISIONS[precision]
        size = dtype.itemsize * math.prod(shape)
        writer.add_tensor_info(name, shape, np.dtype(np.float32), size, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()


def write_tensor(writer: gguf.GGUFWriter, tensor: torch.Tensor, precision: str) -> None:
    """Write the values of the next tensor."""
    values = tensor.to(PRECISIONS[precision][0]).contiguous()
    writer.write_tensor_data(values.view(torch.uint8).numpy())
