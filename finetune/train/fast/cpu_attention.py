"""Attention in bfloat16 on a CPU, with a backward pass in float32."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_flash: Any = torch.ops.aten  # what scaled_dot_product_attention and its derivative call on a CPU


def dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    *,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """`torch.nn.functional.scaled_dot_product_attention`, in bfloat16 on a CPU with a faster derivative.

    `attn_mask` is added to the scores.

    torch 2.13 multiplies small matrices of bfloat16 slowly there: the derivative takes 5 times as long as in float32 for
    rows of 40 tokens, and as long for rows of 512. Remove when a release is no slower than float32.
    """
    if query.device.type != "cpu" or query.dtype != torch.bfloat16:
        return nn.functional.scaled_dot_product_attention(
            query, key, value, attn_mask=attn_mask, is_causal=is_causal, scale=scale, enable_gqa=enable_gqa
        )
    apply: Any = _Attention.apply
    attended: Tensor = apply(query, key, value, attn_mask, is_causal, scale)
    return attended


class _Attention(torch.autograd.Function):
    """Attention of (rows, heads, tokens, width), where `bias` is added to the scores."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None, is_causal: bool, scale: float | None
    ) -> Tensor:
        forward = _flash._scaled_dot_product_flash_attention_for_cpu
        attended, normaliser = forward(query, key, value, 0.0, is_causal, attn_mask=bias, scale=scale)
        ctx.save_for_backward(query, key, value, attended, normaliser, bias)
        ctx.is_causal, ctx.scale = is_causal, scale
        result: Tensor = attended
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        *tensors, normaliser, bias = ctx.saved_tensors
        full = [tensor.float() for tensor in (*gradients, *tensors)]
        backward = _flash._scaled_dot_product_flash_attention_for_cpu_backward
        bias = None if bias is None else bias.float()
        results = backward(*full, normaliser, 0.0, ctx.is_causal, attn_mask=bias, scale=ctx.scale)
        return *(result.to(gradients[0].dtype) for result in results), None, None, None
