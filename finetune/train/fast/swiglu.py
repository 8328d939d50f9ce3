"""The feed-forward block of the Llama family, with fewer tensors kept for the backward pass."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) · up(x))`, with the layers of the block that it replaces, under the same names.

    Autograd keeps four tensors of the block's inner width per token; two of them, `silu(gate(x))` and its product with
    `up(x)`, are cheap to recompute (the block itself: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202).
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = block.gate_proj, block.up_proj, block.down_proj

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        gate, up = self.gate_proj(x), self.up_proj(x)
        apply: Any = _Gate.apply
        product: Tensor = apply(gate, up)
        inputs = (gate.detach(), up.detach())

        def pack(tensor: Tensor) -> Tensor | torch.Size:
            is_product = tensor.data_ptr() == product.data_ptr() and tensor.numel() == product.numel()
            return tensor.shape if is_product else tensor

        def unpack(packed: Tensor | torch.Size) -> Tensor:
            return packed if isinstance(packed, Tensor) else _multiply(*inputs).view(packed)

        with torch.autograd.graph.saved_tensors_hooks(pack, unpack):
            result: Tensor = self.down_proj(product)
        return result


def replace_swiglu_blocks(model: nn.Module) -> None:
    """Replace every block that computes what `SwiGLU` computes with a `SwiGLU`."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if _is_swiglu(child):
                setattr(module, name, SwiGLU(child))


def _is_swiglu(block: nn.Module) -> bool:
    names = {name for name, _ in block.named_children()}
    activation = getattr(block, "act_fn", None)
    return names == {"gate_proj", "up_proj", "down_proj", "act_fn"} and (
        isinstance(activation, nn.SiLU) or type(activation).__name__ == "SiLUActivation"
    )


class _Gate(torch.autograd.Function):
    """`silu(gate) · up`."""

    @staticmethod
    def forward(ctx: Any, gate: Tensor, up: Tensor) -> Tensor:
        ctx.save_for_backward(gate, up)
        return _multiply(gate, up)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor]:
        gate, up = ctx.saved_tensors
        (gradient,) = gradients
        share = torch.sigmoid(gate)
        active = gate * share
        of_up = gradient * active
        # silu' = σ + silu · (1 − σ)
        slope = torch.addcmul(share, active, 1 - share)
        return slope.mul_(gradient).mul_(up), of_up


def _multiply(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate).mul_(up)
