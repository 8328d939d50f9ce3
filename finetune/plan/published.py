"""Shapes of the presets, from their published config.json files, so that planning for them needs no download.

tests/plan/test_plan.py counts parameters from these and compares with what the presets state.
"""

from __future__ import annotations

from typing import Any


def _config(
    kind: str, hidden: int, inner: int, layers: int, heads: int, groups: int, vocabulary: int, **more: Any
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "num_key_value_heads": groups,
        "vocab_size": vocabulary,
        "tie_word_embeddings": True,
        **more,
    }


def _encoder(
    kind: str, hidden: int, inner: int, layers: int, heads: int, vocabulary: int, context: int
) -> dict[str, Any]:
    return {
        "model_type": kind,
        "hidden_size": hidden,
        "intermediate_size": inner,
        "num_hidden_layers": layers,
        "num_attention_heads": heads,
        "vocab_size": vocabulary,
        "max_position_embeddings": context,
    }


PUBLISHED: dict[str, dict[str, Any]] = {
    "smollm2-135m": _config("llama", 576, 1536, 30, 9, 3, 49152),
    "smollm2-360m": _config("llama", 960, 2560, 32, 15, 5, 49152),
    "smollm2-1.7b": _config("llama", 2048, 8192, 24, 32, 32, 49152),
    "qwen2.5-0.5b": _config("qwen2", 896, 4864, 24, 14, 2, 151936),
    "qwen2.5-1.5b": _config("qwen2", 1536, 8960, 28, 12, 2, 151936),
    "llama-3.2-1b": _config("llama", 2048, 8192, 16, 32, 8, 128256, head_dim=64),
    "phi-2": _config("phi", 2560, 10240, 32, 32, 32, 51200, tie_word_embeddings=False, partial_rotary_factor=0.4),
    "gemma-2b": _config("gemma", 2048, 16384, 18, 8, 1, 256000, head_dim=256),
    "gemma-2-2b": _config("gemma2", 2304, 9216, 26, 8, 4, 256000, head_dim=256),
    "gemma-3-270m": _config("gemma3_text", 640, 2048, 18, 4, 1, 262144, head_dim=256),
    "distilbert": {
        "model_type": "distilbert",
        "dim": 768,
        "hidden_dim": 3072,
        "n_layers": 6,
        "n_heads": 12,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
    "mobilebert": {
        "model_type": "mobilebert",
        "hidden_size": 512,
        "intermediate_size": 512,
        "num_hidden_layers": 24,
        "num_attention_heads": 4,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
        "embedding_size": 128,
        "intra_bottleneck_size": 128,
        "true_hidden_size": 128,
        "num_feedforward_networks": 4,
        "hidden_dropout_prob": 0.0,
        "classifier_activation": False,
    },
    "minilm-l6": _encoder("bert", 384, 1536, 6, 12, 30522, 512),
    "bert-base": _encoder("bert", 768, 3072, 12, 12, 30522, 512),
    "modernbert-base": _encoder("modernbert", 768, 1152, 22, 12, 50368, 8192),
}
