"""A causal language model as an ONNX file: it takes tokens and a cache of keys and values, and returns logits and a cache."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from finetune.errors import InputError
from finetune.models.config import read_config

# By the model_type in config.json: those whose files have written the same texts as torch.
DECODERS = ("llama", "mistral", "qwen2", "qwen3", "gemma", "gemma3_text")
CACHE = re.compile(
    r"(input|output)\.past_key_values\.layers\.(\d+)\.(key|value)s"
)  # how the exporter names its tensors
PAST, NEW = 5, 3  # tokens of the sample: neither 0 nor 1, which would be taken as constant


def require_decoder(folder: Path) -> None:
    """Refuse a causal language model of another type.

    Raises:
        InputError: names its type, and those that can be exported.
    """
    kind = str(read_config(folder).get("model_type"))
    if kind not in DECODERS:
        raise InputError(
            f"--format onnx supports encoders and causal language models of these types: {', '.join(DECODERS)}. {folder} "
            f"is of type {kind}. Export it with --format gguf"
        )


def sample_inputs(model: Any) -> dict[str, Any]:
    """Two rows of tokens, and the cache of those before them, in which a window of attention has no layers of its own."""
    from transformers import DynamicCache

    ids = torch.arange(2 * (PAST + NEW)).reshape(2, -1) % model.config.vocab_size
    with torch.inference_mode(False), torch.no_grad():
        cache = model(ids[:, :PAST], past_key_values=DynamicCache()).past_key_values
    return {
        "input_ids": ids[:, PAST:],
        "attention_mask": torch.ones_like(ids),
        "position_ids": torch.arange(PAST, PAST + NEW).repeat(2, 1),
        "past_key_values": cache,
    }


def name_tensors(program: Any, config: Any) -> None:
    """Give inputs and outputs the names and the sizes that transformers.js looks for."""
    import onnx_ir

    heads = config.num_key_value_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    sizes = {
        "input_ids": ["batch_size", "sequence_length"],
        "attention_mask": ["batch_size", "total_sequence_length"],
        "position_ids": ["batch_size", "sequence_length"],
        "logits": ["batch_size", "sequence_length", config.vocab_size],
    }
    for value in (*program.graph.inputs, *program.graph.outputs):
        size = sizes.get(value.name)
        if part := CACHE.fullmatch(value.name):
            side, layer, kind = part.groups()
            prefix, length = ("past_key_values", "past") if side == "input" else ("present", "total")
            value.name = f"{prefix}.{layer}.{kind}"
            size = ["batch_size", heads, f"{length}_sequence_length", width]
        assert size is not None, f"the exporter has named a tensor {value.name}"
        value.shape = onnx_ir.Shape(size)
