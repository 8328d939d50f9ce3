"""A LoRA layer over a frozen linear layer, forward and backward in as few matrix products as possible."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear
from torch import Tensor, nn

from finetune.models.quantize import Int8Linear, unpack_weight


class FusedLinear(Linear):
    """PEFT's LoRA layer with its products fused in the plain case, and unchanged in every other case.

    PEFT computes the base and the update separately, and scales and adds the update in new tensors. Here the products
    accumulate in one result. Quantised weights are unpacked for one product at a time, to the values that `models.quantize`
    computes with, so the base model stays in memory at half a byte per weight, or one.

    Precisions, on every device: x, W, the result and every product are in the compute dtype of the model, and products
    sum in float32. The LoRA matrices, their gradients and the optimizer are in float32; the matrices are rounded to the
    compute dtype for each product, so x needs no copy in float32. Nothing relies on autocast. With `rounded`, a model that
    computes in float32 multiplies x and W in bfloat16: W is then rounded once and x for each product, and nothing else is.
    """

    rounded: Tensor | None = None  # W in bfloat16, (out features, in features): round_frozen_weights

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in features) → (…, out features)."""
        name = self._plain_adapter(x, args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Any = self.get_base_layer()
        flat = x.reshape(-1, x.shape[-1])
        dropout = self.lora_dropout[name]
        dropped = None if isinstance(dropout, nn.Identity) or not self.training else dropout(flat)
        weight, state = self.rounded, None
        if weight is None:
            weight = base.weight
            state = base.state.SCB if isinstance(base, Int8Linear) else getattr(weight, "quant_state", None)
        lora_a, lora_b = self.lora_A[name].weight, self.lora_B[name].weight
        apply: Any = _LoraProduct.apply
        out: Tensor = apply(flat, dropped, weight, state, base.bias, lora_a, lora_b, self.scaling[name])
        return out.view(*x.shape[:-1], out.shape[-1])

    def _plain_adapter(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The name of the adapter if the layer computes just `base(x) + scaling · B(A(dropout(x)))`, else None."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.fan_in_fan_out:
            return None
        base = self.get_base_layer()
        precision = base.compute_dtype if isinstance(base, (Linear4bit, Int8Linear)) else base.weight.dtype
        return name if x.dtype == precision and self.lora_B[name].bias is None else None


def round_frozen_weights(model: nn.Module) -> None:
    """Let the fused layers of a model that computes in float32 multiply with their frozen weights in bfloat16.

    The weights are unpacked and rounded once, which takes 2 bytes for each.
    """
    for layer in model.modules():
        if isinstance(layer, FusedLinear) and not layer.fan_in_fan_out:
            layer.rounded = unpack_weight(layer.get_base_layer()).to(torch.bfloat16)


class _LoraProduct(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (dropped Aᵀ) Bᵀ`, where W and bias are frozen and W may be packed in 4 or 8 bits, or rounded.

    `dropped` is x after dropout, or None for x itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        weight: Tensor,
        state: QuantState | Tensor | None,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor:
        entering = x if dropped is None else dropped
        inner = entering @ lora_a.t().to(x.dtype)  # (tokens, rank)
        full = _unpack(weight, state, x.dtype)
        result = _multiply(x, full.t(), bias)
        result.addmm_(inner, lora_b.t().to(x.dtype), alpha=scaling)
        ctx.save_for_backward(entering, inner, weight, lora_a, lora_b)
        ctx.state, ctx.scaling = state, scaling
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        entering, inner, weight, lora_a, lora_b = ctx.saved_tensors
        (gradient,) = gradients
        dtype, (needs_x, needs_dropped) = gradient.dtype, ctx.needs_input_grad[:2]
        through = (gradient @ lora_b.to(dtype)).mul_(ctx.scaling)  # (tokens, rank)
        of_x = _multiply(gradient, _unpack(weight, ctx.state, dtype)) if needs_x else None
        of_dropped = through @ lora_a.to(dtype) if needs_dropped else None
        if of_x is not None and not needs_dropped:
            of_x.addmm_(through, lora_a.to(dtype))
        of_a = (through.t() @ entering).to(lora_a.dtype)
        of_b = (gradient.t() @ inner).to(lora_b.dtype).mul_(ctx.scaling)
        return of_x, of_dropped, None, None, None, of_a, of_b, None


def _multiply(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x · weight + bias`, multiplied in the precision of `weight` and returned in that of `x`."""
    if weight.dtype == x.dtype:
        return x @ weight if bias is None else torch.addmm(bias.to(x.dtype), x, weight)
    result = (x.to(weight.dtype) @ weight).to(x.dtype)
    return result if bias is None else result.add_(bias)


def _unpack(weight: Tensor, state: QuantState | Tensor | None, dtype: torch.dtype) -> Tensor:
    """(out features, in features)."""
    if state is None:
        return weight
    unpacked = int8_vectorwise_dequant(weight, state) if isinstance(state, Tensor) else dequantize_4bit(weight, state)
    return unpacked.to(dtype)
