"""A LoRA layer over a plain linear layer, forward and backward in as few matrix products as there can be."""

from __future__ import annotations

from typing import Any

import torch
from peft.tuners.lora import Linear
from torch import Tensor, nn


class FusedLinear(Linear):
    """PEFT's LoRA layer with the products joined, for the plain case; in every other it is PEFT's own.

    PEFT computes base and update apart, scales the update and adds it up in tensors of their own. Here the products
    write into one result, and one function keeps what the backward pass needs.
    """

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in features) → (…, out features)."""
        name = self._plain_adapter(x, args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        base, lora_a, lora_b = self.get_base_layer(), self.lora_A[name], self.lora_B[name]
        flat = x.reshape(-1, x.shape[-1])
        out: Tensor = _LoraProduct.apply(
            flat, base.weight, base.bias, lora_a.weight, lora_b.weight, self.scaling[name]
        )
        return out.view(*x.shape[:-1], out.shape[-1])

    def _plain_adapter(self, x: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any]) -> str | None:
        """The adapter's name where nothing but `base(x) + scaling · B(A(x))` in one precision is asked for."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.fan_in_fan_out:
            return None
        dropout = self.lora_dropout[name]
        if not isinstance(dropout, nn.Identity) and self.training:
            return None
        tensors = (self.get_base_layer().weight, self.lora_A[name].weight, self.lora_B[name].weight)
        alike = all(tensor.dtype == x.dtype for tensor in tensors)
        return name if alike and self.lora_B[name].bias is None and not torch.is_autocast_enabled(x.device.type) else None


class _LoraProduct(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (x Aᵀ) Bᵀ`, where W and bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, lora_a: Tensor, lora_b: Tensor, scaling: float
    ) -> Tensor:
        inner = x @ lora_a.t()  # (tokens, rank)
        result = x @ weight.t() if bias is None else torch.addmm(bias, x, weight.t())
        result.addmm_(inner, lora_b.t(), alpha=scaling)
        ctx.save_for_backward(x, inner, weight, lora_a, lora_b)
        ctx.scaling = scaling
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, inner, weight, lora_a, lora_b = ctx.saved_tensors
        (gradient,) = gradients
        through = (gradient @ lora_b).mul_(ctx.scaling)  # (tokens, rank)
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = gradient @ weight
            of_x.addmm_(through, lora_a)
        of_b = (gradient.t() @ inner).mul_(ctx.scaling)
        return of_x, None, None, through.t() @ x, of_b, None
