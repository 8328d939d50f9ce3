"""A LoRA layer over a frozen linear layer, forward and backward in as few matrix products as possible."""

from __future__ import annotations

from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear
from torch import Tensor, nn


class FusedLinear(Linear):
    """PEFT's LoRA layer with its products fused in the plain case, and unchanged in every other case.

    PEFT computes the base and the update separately, and scales and adds the update in new tensors. Here the products
    accumulate in one result. On a CPU, 4-bit weights are unpacked for one product at a time, to the values that
    bitsandbytes itself computes with, so the base model stays in memory at half a byte per weight.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in features) → (…, out features)."""
        name = self._plain_adapter(x, args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base: Any = self.get_base_layer()
        lora_a, lora_b = self.lora_A[name], self.lora_B[name]
        state = getattr(base.weight, "quant_state", None)
        flat = x.reshape(-1, x.shape[-1])
        apply: Any = _LoraProduct.apply
        out: Tensor = apply(flat, base.weight, state, base.bias, lora_a.weight, lora_b.weight, self.scaling[name])
        return out.view(*x.shape[:-1], out.shape[-1])

    def _plain_adapter(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The name of the adapter if the layer computes just `base(x) + scaling · B(A(x))` in one precision, else None."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.fan_in_fan_out:
            return None
        if self.training and not isinstance(self.lora_dropout[name], nn.Identity):
            return None
        base = self.get_base_layer()
        packed = isinstance(base, Linear4bit)
        if packed and base.weight.device.type != "cpu":
            return None  # a GPU has a kernel for it
        precision = base.compute_dtype if packed else base.weight.dtype
        alike = {x.dtype, precision, self.lora_A[name].weight.dtype, self.lora_B[name].weight.dtype}
        joined = len(alike) == 1 and self.lora_B[name].bias is None
        return name if joined and not torch.is_autocast_enabled(x.device.type) else None


class _LoraProduct(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ`, where W and bias are frozen and W may be packed in 4 bit."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        state: QuantState | None,
        bias: Tensor | None,
        lora_a: Tensor,
        lora_b: Tensor,
        scaling: float,
    ) -> Tensor:
        inner = x @ lora_a.t()  # (tokens, rank)
        full = _unpack(weight, state, x.dtype)
        result = x @ full.t() if bias is None else torch.addmm(bias.to(x.dtype), x, full.t())
        result.addmm_(inner, lora_b.t(), alpha=scaling)
        ctx.save_for_backward(x, inner, weight, lora_a, lora_b)
        ctx.state, ctx.scaling = state, scaling
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, weight, lora_a, lora_b = ctx.saved_tensors
        (gradient,) = gradients
        through = (gradient @ lora_b).mul_(ctx.scaling)  # (tokens, rank)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ _unpack(weight, ctx.state, x.dtype)
            of_x.addmm_(through, lora_a)
        of_b = (gradient.t() @ inner).mul_(ctx.scaling)
        return of_x, None, None, None, through.t() @ x, of_b, None


def _unpack(weight: Tensor, state: QuantState | None, dtype: torch.dtype) -> Tensor:
    """(out features, in features)."""
    if state is None:
        return weight
    full: Tensor = dequantize_4bit(weight, state)
    return full.to(dtype)
