"""The feed-forward block of the Llama family, with fewer tensors kept for the backward pass."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor, nn

LAYERS = ("gate_proj", "up_proj", "down_proj")
SCALES = (0.1, 1.0, 10.0, 1000.0)  # of the inputs on which blocks are compared


class SwiGLU(nn.Module):
    """`down(silu(gate(x)) · up(x))`, with the layers of the block that it replaces, under the same names.

    Autograd keeps four tensors of the block's inner width per token; two of them, `silu(gate(x))` and its product with
    `up(x)`, are cheap to recompute (the block itself: Shazeer, GLU Variants Improve Transformer, arXiv 2002.05202).
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        self.gate_proj, self.up_proj, self.down_proj = block.gate_proj, block.up_proj, block.down_proj
        self._block = (block,)  # in a tuple, so that its layers are not registered twice

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

    def original(self) -> nn.Module:
        """The block that this one replaced, with the layers that this one has now."""
        (block,) = self._block
        block.gate_proj, block.up_proj, block.down_proj = self.gate_proj, self.up_proj, self.down_proj
        result: nn.Module = block.train(self.training)
        return result


def replace_swiglu_blocks(model: nn.Module) -> None:
    """Replace every block that computes what `SwiGLU` computes, bit for bit, with a `SwiGLU`.

    Several architectures have the layers of the block and compute something else with them: Falcon-H1 scales two of its
    products, others limit them. Blocks of one class with the same settings are compared once.
    """
    equal: dict[tuple[object, ...], bool] = {}
    for module in list(model.modules()):
        for name, child in module.named_children():
            if not _has_layers(child):
                continue
            kind = _kind(child)
            if kind not in equal:
                equal[kind] = _computes_the_same(child)
            if equal[kind]:
                setattr(module, name, SwiGLU(child))


def restore_swiglu_blocks(model: nn.Module) -> None:
    """Put back the blocks that `replace_swiglu_blocks` replaced, with the layers that they have now."""
    for module in list(model.modules()):
        for name, child in module.named_children():
            if isinstance(child, SwiGLU):
                setattr(module, name, child.original())


def _has_layers(block: nn.Module) -> bool:
    names = {name for name, _ in block.named_children()}
    hooked = block._forward_hooks or block._forward_pre_hooks
    return (
        names == {*LAYERS, "act_fn"}
        and all(isinstance(getattr(block, name), nn.Linear) for name in LAYERS)
        and not hooked
    )


def _kind(block: nn.Module) -> tuple[object, ...]:
    """What decides how a block computes: its classes, and its numbers and other attributes that are not layers."""
    settings = {name: value for name, value in vars(block).items() if not name.startswith("_") and name != "training"}
    simple = {name: value if isinstance(value, Hashable) else id(value) for name, value in settings.items()}
    return type(block), type(block.act_fn), *sorted(simple.items())


def _computes_the_same(block: Any) -> bool:
    """Whether `block` and a `SwiGLU` with its layers agree in every bit, on inputs large enough to reach any limit."""
    layer = block.gate_proj
    dtype = getattr(layer, "compute_dtype", None) or layer.weight.dtype
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(SCALES), layer.in_features, generator=generator) * torch.tensor(SCALES)[:, None]
    x = x.to(layer.weight.device, dtype)
    with torch.no_grad():
        return torch.equal(block(x), SwiGLU(block)(x))


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
        of_gate: Tensor = torch.ops.aten.silu_backward(gradient * up, gate)
        return of_gate, _multiply(gate, gradient)


def _multiply(gate: Tensor, up: Tensor) -> Tensor:
    return nn.functional.silu(gate).mul_(up)
