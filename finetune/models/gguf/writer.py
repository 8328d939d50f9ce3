"""Writes the model in a folder as a GGUF file, tensor by tensor."""

from __future__ import annotations

from pathlib import Path

import gguf
from transformers import PreTrainedTokenizerBase

from finetune.models.gguf.families import Shape, add_hyperparameters
from finetune.models.gguf.tensors import add_tensors, place_tensors
from finetune.models.gguf.vocabulary import add_vocabulary
from finetune.models.quantize import Rounding

FILE_TYPES = {
    "f32": gguf.LlamaFileType.ALL_F32,
    "f16": gguf.LlamaFileType.MOSTLY_F16,
    "bf16": gguf.LlamaFileType.MOSTLY_BF16,
}


def write_model(
    folder: Path,
    shape: Shape,
    tokenizer: PreTrainedTokenizerBase | None,
    out: Path,
    *,
    precision: str,
    name: str,
    rounding: Rounding | None = None,
) -> None:
    """Write a model in an unquantised precision; at most one tensor is in memory.

    Args:
        tokenizer: None for a file of which llama.cpp is only to compute logits.
        rounding: what becomes of the weights first, such as those that an adapter was trained over; None: nothing.

    Raises:
        InputError: llama.cpp does not know its tokenizer or one of its tensors.
    """
    tensors = place_tensors(folder, shape)
    writer = gguf.GGUFWriter(out, gguf.MODEL_ARCH_NAMES[shape.family.arch])
    try:
        writer.add_type(gguf.GGUFType.MODEL)
        writer.add_name(name)
        writer.add_file_type(FILE_TYPES[precision])
        add_hyperparameters(writer, shape)
        if tokenizer is None:
            writer.add_tokenizer_model("no_vocab")
        else:
            add_vocabulary(writer, tokenizer, shape.config.vocab_size)
        add_tensors(writer, tensors, shape, precision, rounding)
    finally:
        writer.close()
