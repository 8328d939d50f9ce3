"""Decoder layers of the Llama family in fewer operations: with one token per sequence, each of them takes time of its own."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from finetune.serve.runners.slot_attention import attend_slots

LAYERS = {"LlamaDecoderLayer", "MistralDecoderLayer", "Qwen2DecoderLayer"}  # compute what `_forward` does


def shorten_layers(model: nn.Module) -> None:
    """Let the decoder layers of a model in float32 on a CPU compute passes of `slot_attention` in fewer operations.

    All other passes remain as they are, and so do the linear layers, with whatever is hooked to them.
    """
    layers: list[Any] = [module for module in model.modules() if type(module).__name__ in LAYERS]
    for layer in layers:
        norm = layer.input_layernorm.weight
        if norm.device.type == "cpu" and norm.dtype == torch.float32:  # norms of other numbers are computed in float32
            layer.forward = functools.partial(_forward, layer)


def _forward(layer: Any, hidden: Tensor, **arguments: Any) -> Tensor:
    """(1, tokens, width) → (1, tokens, width)."""
    spans, attention, mlp, rows = arguments.get("spans"), layer.self_attn, layer.mlp, hidden[0]
    if spans is None or _has_hooks(attention) or _has_hooks(mlp):
        plain: Tensor = type(layer).forward(layer, hidden, **arguments)
        return plain
    x = _normalise(layer.input_layernorm, rows)
    query, key, value = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    states = torch.cat((query, key), 1).view(len(rows), -1, attention.head_dim)
    cosine, sine = spans.rotation(*arguments["position_embeddings"])
    states = torch.addcmul(states * cosine, states.roll(attention.head_dim // 2, -1), sine)
    heads = query.shape[1] // attention.head_dim
    attended = attend_slots(
        attention,
        states[:, :heads],
        states[:, heads:],
        value.view(len(rows), -1, attention.head_dim),
        spans=spans,
        scaling=attention.scaling,
        window=getattr(attention, "sliding_window", getattr(attention.config, "sliding_window", None)),
    )
    rows = attention.o_proj(attended.reshape(len(rows), -1)).add_(rows)
    x = _normalise(layer.post_attention_layernorm, rows)
    inner = mlp.act_fn(mlp.gate_proj(x)).mul_(mlp.up_proj(x))
    result: Tensor = mlp.down_proj(inner).add_(rows)
    return result[None]


def _has_hooks(module: Any) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _normalise(module: Any, x: Tensor) -> Tensor:
    if _has_hooks(module):  # adapters that have a norm of their own
        normalised: Tensor = module(x)
        return normalised
    norm: Tensor = torch.linalg.vector_norm(x, dim=-1, keepdim=True)  # torch.rms_norm takes twice as long on a CPU
    scale = torch.rsqrt(norm.square_().mul_(1 / x.shape[-1]).add_(module.variance_epsilon))
    weight: Tensor = module.weight
    return x * scale * weight
