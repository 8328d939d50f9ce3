"""The families of models that llama.cpp computes as transformers does, and their hyperparameters in a GGUF file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import AutoConfig

from finetune.errors import InputError


@dataclass(frozen=True)
class Family:
    """What llama.cpp expects of the weights of an architecture.

    Args:
        arch: its name in llama.cpp.
        has_pairs: rotary positions turn neighbouring rows of queries and keys, and not those of two halves.
        norm_shift: is added to the weights of norms.
        full_every: of the layers, every one with this number attends to all tokens and the others to a window; 0: all do.
    """

    arch: gguf.MODEL_ARCH
    has_pairs: bool = False
    norm_shift: int = 0
    full_every: int = 0


# By the model_type in config.json.
FAMILIES = {
    "llama": Family(gguf.MODEL_ARCH.LLAMA, has_pairs=True),
    "mistral": Family(gguf.MODEL_ARCH.LLAMA, has_pairs=True),
    "smollm3": Family(gguf.MODEL_ARCH.SMOLLM3, has_pairs=True),
    "qwen2": Family(gguf.MODEL_ARCH.QWEN2),
    "qwen3": Family(gguf.MODEL_ARCH.QWEN3),
    "gemma": Family(gguf.MODEL_ARCH.GEMMA, norm_shift=1),
    "gemma2": Family(gguf.MODEL_ARCH.GEMMA2, norm_shift=1, full_every=2),
    "gemma3_text": Family(gguf.MODEL_ARCH.GEMMA3, norm_shift=1, full_every=6),
    "phi": Family(gguf.MODEL_ARCH.PHI2),
    "phi3": Family(gguf.MODEL_ARCH.PHI3),
}
ROPE_SCALINGS = {"default", "linear", "llama3"}


@dataclass(frozen=True)
class Shape:
    """A model's family and its configuration, as transformers reads it."""

    family: Family
    config: Any

    @property
    def head_dim(self) -> int:
        """The width of a head of attention."""
        return int(getattr(self.config, "head_dim", None) or self.config.hidden_size // self.config.num_attention_heads)

    @property
    def rope(self) -> dict[str, Any]:
        """The settings of rotary positions in layers that attend to all tokens."""
        settings: dict[str, Any] = self.config.rope_parameters
        return dict(settings.get("full_attention", settings))


def read_shape(folder: Path) -> Shape:
    """The family and the configuration of the model in a folder.

    Raises:
        InputError: llama.cpp, or this export, does not know its architecture; names those that work.
    """
    config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    family = FAMILIES.get(config.model_type)
    if family is None:
        raise InputError(
            f"A model of type {config.model_type} cannot be exported to GGUF. Types that can: {', '.join(FAMILIES)}"
        )
    shape = Shape(family, config)
    _require_known(shape, folder)
    return shape


def _require_known(shape: Shape, folder: Path) -> None:
    """Refuse settings that llama.cpp does not read, but computes in its own way."""
    config, kind = shape.config, shape.rope.get("rope_type", "default")
    if kind not in ROPE_SCALINGS:
        raise InputError(
            f"The rotary positions of {folder} are scaled by {kind}, which the export to GGUF does not support. "
            f"It supports {', '.join(sorted(ROPE_SCALINGS))}"
        )
    if every := shape.family.full_every:
        usual = [(number + 1) % every == 0 for number in range(config.num_hidden_layers)]
        if usual != [layer == "full_attention" for layer in config.layer_types]:
            raise InputError(
                f"In {folder}, other layers attend to all tokens than llama.cpp assumes for {config.model_type}: every "
                f"one of {every}. Export is not possible; slmtune serve runs the model as it is"
            )
        scale = getattr(config, "query_pre_attn_scalar", shape.head_dim)
        if scale != shape.head_dim:
            raise InputError(
                f"{folder} scales attention by {scale}, where llama.cpp uses the width of a head, {shape.head_dim}. "
                "Export is not possible; slmtune serve runs the model as it is"
            )


def add_hyperparameters(writer: gguf.GGUFWriter, shape: Shape) -> None:
    """Write what llama.cpp needs to know about the architecture."""
    config, rope = shape.config, shape.rope
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(shape.head_dim)
    writer.add_value_length(shape.head_dim)
    writer.add_vocab_size(config.vocab_size)
    if hasattr(config, "layer_norm_eps"):
        writer.add_layer_norm_eps(config.layer_norm_eps)
    else:
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(rope["rope_theta"])
    writer.add_rope_dimension_count(int(shape.head_dim * rope.get("partial_rotary_factor", 1)))
    if rope.get("rope_type") == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(rope["factor"])
    if shape.family.full_every:
        writer.add_sliding_window(config.sliding_window)
        for add, value in (
            (writer.add_attn_logit_softcapping, config.attn_logit_softcapping),
            (writer.add_final_logit_softcapping, config.final_logit_softcapping),
        ):
            if value is not None:
                add(value)
    if local := config.rope_parameters.get("sliding_attention"):
        writer.add_rope_freq_base_swa(local["rope_theta"])


def rope_factors(shape: Shape) -> torch.Tensor | None:
    """By what llama.cpp divides each frequency of rotary positions, (head width / 2,); None if by nothing.

    Llama 3.1 stretches the low frequencies and keeps the high ones; llama.cpp reads the outcome as a tensor.
    """
    if shape.rope.get("rope_type") != "llama3":
        return None
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](shape.config, torch.device("cpu"))
    exponents = torch.arange(0, shape.head_dim, 2, dtype=torch.float32) / shape.head_dim
    plain: torch.Tensor = shape.rope["rope_theta"] ** -exponents
    return plain / torch.as_tensor(scaled)
