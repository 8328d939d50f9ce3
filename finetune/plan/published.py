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
}
