"""The normalisation of the Llama family, with its gradient in few passes over the activations."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

SCALES = (1e-3, 1.0, 1e3)  # of the inputs on which modules are compared


class RMSNorm(nn.Module):
    """`weight · x / sqrt(mean(x²) + eps)`, or with `1 + weight` as in Gemma (Zhang and Sennrich, arXiv 1910.07467).

    The class of a module that `replace_rms_norms` has replaced, with everything else that the module had. While its weight
    is trained, or in other precisions than float32, it computes as before.
    """

    weight: nn.Parameter
    replaced: tuple[type[nn.Module], float, float]  # its class, eps, and what is added to the weight

    def forward(self, x: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        original, eps, added = self.replaced
        if self.weight.requires_grad or x.dtype != torch.float32 or self.weight.dtype != torch.float32:
            result: Tensor = original.forward(self, x)
            return result
        scale = self.weight.detach()
        apply: Any = _Normalised.apply
        normalised: Tensor = apply(x, scale + added if added else scale, eps)
        return normalised

    def extra_repr(self) -> str:
        """The shape of the weight, and eps."""
        return f"{tuple(self.weight.shape)}, eps={self.replaced[1]}"


def replace_rms_norms(model: nn.Module) -> None:
    """Give every module that computes what `RMSNorm` computes, up to rounding, that class."""
    for module in model.modules():
        weight, eps = getattr(module, "weight", None), getattr(module, "variance_epsilon", getattr(module, "eps", None))
        if not type(module).__name__.endswith("RMSNorm") or not isinstance(weight, nn.Parameter) or eps is None:
            continue
        if weight.dtype != torch.float32 or weight.dim() != 1 or module._forward_hooks or module._forward_pre_hooks:
            continue
        for added in (0.0, 1.0):
            if _computes_the_same(module, weight, float(eps), added):
                replaced: Any = module
                replaced.replaced, replaced.__class__ = (type(module), float(eps), added), RMSNorm
                break


def restore_rms_norms(model: nn.Module) -> None:
    """Give the modules that `replace_rms_norms` replaced their own class again."""
    for module in model.modules():
        if isinstance(module, RMSNorm):
            replaced: Any = module
            replaced.__class__ = module.replaced[0]


def _computes_the_same(module: nn.Module, weight: Tensor, eps: float, added: float) -> bool:
    if len(inspect.signature(module.forward).parameters) != 1:
        return False
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(len(SCALES), len(weight), generator=generator) * torch.tensor(SCALES)[:, None]
    x = x.to(weight.device)
    with torch.no_grad():
        return torch.allclose(module(x), _normalise(x, weight + added, eps)[0], rtol=1e-6, atol=0)


def _normalise(x: Tensor, scale: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The result, and what each token was multiplied with: (…, 1)."""
    factor = torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps)
    return (x * factor).mul_(scale), factor


class _Normalised(torch.autograd.Function):
    """`scale · x / sqrt(mean(x²) + eps)` with a frozen scale."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor, eps: float) -> Tensor:
        result, factor = _normalise(x, scale, eps)
        ctx.save_for_backward(x, scale, factor)
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        x, scale, factor = ctx.saved_tensors
        (gradient,) = gradients
        of_x = gradient * scale  # of the normalised value, f · x; the gradient of f is -f³ · x / width
        along = (of_x * x).mean(-1, keepdim=True) * factor.pow(3)
        return of_x.mul_(factor).addcmul_(x, along, value=-1), None, None
