"""Families of models, each as a tiny configuration of the real class: the parameters of test_families.py.

The guide's table of families is generated from this list by docs/generate_families.py.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ..tiny_shape import WIDTHS

Batches = Literal["packed, with shared prefixes", "packed", "padded"]


@dataclass(frozen=True, eq=False)
class Family:
    """A family of models and how it is trained.

    Args:
        name: as people call it; `examples` are models on the Hub.
        kind: the `model_type` of its config.json.
        batches: packed without shared prefixes where the published models have dropout; padded where it is in their
            attention, or where packed rows would see each other.
        config: settings that differ from `SHAPE`.
    """

    name: str
    examples: str
    kind: str
    batches: Batches = "packed, with shared prefixes"
    config: dict[str, Any] = field(default_factory=dict)


# Two layers, so that a layer follows another one, and windows that the rows of the tests exceed.
SHAPE: dict[str, Any] = WIDTHS | {"max_position_embeddings": 512, "initializer_range": 0.1}
HEADS = {"head_dim": 8}
GEMMA = HEADS | {
    "query_pre_attn_scalar": 8,
    "sliding_window": 16,
    "layer_types": ["sliding_attention", "full_attention"],
}
SCALES = {"embedding_multiplier": 2.0, "residual_multiplier": 0.5, "attention_multiplier": 0.3, "logits_scaling": 2.0}
MAMBA = {
    "mamba_d_ssm": 32,
    "mamba_n_heads": 4,
    "mamba_d_head": 8,
    "mamba_d_state": 8,
    "mamba_chunk_size": 16,
    "mlp_multipliers": [0.7, 0.9],
    "lm_head_multiplier": 0.5,
}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 512}  # its dropout is 0.1, as published

FAMILIES = (
    Family("Llama", "Llama 3.2, TinyLlama", "llama"),
    Family(
        "SmolLM2", "SmolLM2-135M, -360M, -1.7B", "llama", config={"tie_word_embeddings": True, "num_attention_heads": 2}
    ),
    Family("SmolLM3", "SmolLM3-3B", "smollm3", config={"no_rope_layers": [1, 0]}),
    Family("Mistral", "Mistral-7B", "mistral", config={"sliding_window": 16}),
    Family("Qwen2.5", "Qwen2.5-0.5B, -1.5B", "qwen2"),
    Family("Qwen3", "Qwen3-0.6B, -1.7B", "qwen3", config=HEADS),
    Family("Phi-2", "phi-2", "phi", "packed", {"partial_rotary_factor": 0.5, "resid_pdrop": 0.1}),
    Family("Phi-3", "Phi-3-mini, Phi-4-mini", "phi3"),
    Family("Gemma", "gemma-2b", "gemma", config=HEADS),
    Family("Gemma 2", "gemma-2-2b", "gemma2", config=GEMMA | {"attn_logit_softcapping": 2.0}),
    Family("Gemma 3", "gemma-3-270m, -1b (text)", "gemma3_text", config=GEMMA),
    Family("Granite", "granite-3.3-2b", "granite", config=SCALES),
    Family("OLMo 2", "OLMo-2-1B", "olmo2"),
    Family("GPT-2", "gpt2, distilgpt2", "gpt2", "padded", GPT2),
    Family(
        "LFM2",
        "LFM2-350M, -1.2B",
        "lfm2",
        "padded",
        {"layer_types": ["conv", "full_attention"], "block_multiple_of": 16},
    ),
    Family("Falcon-H1", "Falcon-H1-0.5B, -1.5B", "falcon_h1", "padded", MAMBA),
)
