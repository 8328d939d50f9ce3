"""A LoRA layer over a frozen linear layer, forward and backward in as few matrix products as possible."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, int8_vectorwise_dequant
from bitsandbytes.nn import Linear4bit
from peft.tuners.lora import Linear
from torch import Tensor, nn

from finetune.models.quantize import Int8Linear, unpack_weight

# Layers of one module that read the same input, in the names of Llama and of BERT.
SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("query", "key", "value"), ("gate_proj", "up_proj"))
# Tokens of a product in bfloat16 are filled up to a multiple of this. oneDNN compiles a kernel for each number of tokens,
# which takes 3 to 6 ms for a layer of SmolLM2-135M, ten times as long as the product, and every batch has another number.
MULTIPLE = 32


class FusedLinear(Linear):
    """PEFT's LoRA layer with its products fused in the plain case, and unchanged in every other case.

    PEFT computes the base and the update separately, and scales and adds the update in new tensors. Here the products
    accumulate in one result, and layers that read the same input are computed together (`join_siblings`). Quantised
    weights are unpacked for one product at a time, to the values that `models.quantize` computes with, so the base model
    stays in memory at half a byte per weight, or one.

    Precisions, on every device: x, W, the result and every product are in the compute dtype of the model, and products
    sum in float32. The LoRA matrices, their gradients and the optimizer are in float32; the matrices are rounded to the
    compute dtype for each product, so x needs no copy in float32. Nothing relies on autocast. With `rounded`, a model that
    computes in float32 multiplies x and W in bfloat16: W is then rounded once and x for each product, and nothing else is.
    """

    rounded: Tensor | None = None  # W in bfloat16, (out features, in features): round_frozen_weights
    siblings: Siblings | None = None

    def forward(self, x: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """(…, in features) → (…, out features)."""
        name = self.plain_adapter(x, args, kwargs)
        if name is None:
            result: Tensor = super().forward(x, *args, **kwargs)
            return result
        dropout = self.lora_dropout[name]
        if not isinstance(dropout, nn.Identity) and self.training:
            return multiply([self], name, x, dropout(x))[0]
        if self.siblings is not None and (shared := self.siblings.result(self, name, x)) is not None:
            return shared
        return multiply([self], name, x)[0]

    def plain_adapter(self, x: Tensor, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> str | None:
        """The name of the adapter if the layer computes just `base(x) + scaling · B(A(dropout(x)))`, else None."""
        if args or kwargs or self.disable_adapters or self.merged or len(self.active_adapters) != 1:
            return None
        name = self.active_adapters[0]
        if name not in self.lora_A or name in self.lora_variant or self.fan_in_fan_out:
            return None
        base = self.get_base_layer()
        precision = base.compute_dtype if isinstance(base, (Linear4bit, Int8Linear)) else base.weight.dtype
        return name if x.dtype == precision and self.lora_B[name].bias is None else None

    def frozen(self) -> Frozen:
        """The frozen layer."""
        base: Any = self.get_base_layer()
        if self.rounded is not None:
            return Frozen(self.rounded, None, base.bias)
        state = base.state.SCB if isinstance(base, Int8Linear) else getattr(base.weight, "quant_state", None)
        return Frozen(base.weight, state, base.bias)


class Siblings:
    """Layers that read the same input: the first one that gets it computes all, and the others find their results.

    Their LoRA matrices then need one product instead of one for each layer, and their input is rounded once.
    """

    def __init__(self, layers: Sequence[FusedLinear]) -> None:
        self.layers = layers
        self._input: Tensor | None = None
        self._results: dict[FusedLinear, Tensor] = {}

    def result(self, layer: FusedLinear, name: str, x: Tensor) -> Tensor | None:
        """The result of `layer` for x, or None if not all layers have a plain adapter of this name."""
        if self._input is not x or layer not in self._results:
            if any(each.plain_adapter(x) != name for each in self.layers):
                return None
            results = multiply(self.layers, name, x)
            self._input, self._results = x, dict(zip(self.layers, results, strict=True))
        found = self._results.pop(layer)
        if not self._results:
            self._input = None
        return found


def join_siblings(model: nn.Module) -> None:
    """Let the fused layers of a model on a CPU that read the same input be computed together."""
    for parent in model.modules():
        children = dict(parent.named_children())
        for names in SIBLINGS:
            layers = [layer for name in names if isinstance(layer := children.get(name), FusedLinear)]
            widths = {layer.in_features for layer in layers}
            if len(layers) == len(names) and len(widths) == 1 and all(map(_is_joinable, layers)):
                siblings = Siblings(layers)
                for layer in layers:
                    layer.siblings = siblings


def _is_joinable(layer: FusedLinear) -> bool:
    return not layer.fan_in_fan_out and layer.get_base_layer().weight.device.type == "cpu"


def round_frozen_weights(model: nn.Module) -> None:
    """Let the fused layers of a model that computes in float32 multiply with their frozen weights in bfloat16.

    The weights are unpacked and rounded once, which takes 2 bytes for each.
    """
    for layer in model.modules():
        if isinstance(layer, FusedLinear) and not layer.fan_in_fan_out:
            layer.rounded = unpack_weight(layer.get_base_layer()).to(torch.bfloat16)


@dataclass(frozen=True)
class Frozen:
    """The weight of a frozen linear layer, which may be packed in 4 or 8 bits, or rounded, and its bias."""

    weight: Tensor
    state: QuantState | Tensor | None
    bias: Tensor | None

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """(out features, in features)."""
        if self.state is None:
            return self.weight
        if isinstance(self.state, Tensor):
            unpacked: Tensor = int8_vectorwise_dequant(self.weight, self.state)
        else:
            unpacked = dequantize_4bit(self.weight, self.state)
        return unpacked.to(dtype)


def multiply(layers: Sequence[FusedLinear], name: str, x: Tensor, dropped: Tensor | None = None) -> list[Tensor]:
    """The results of layers with the adapter `name` for one input: (…, in features) → (…, out features) each.

    Args:
        dropped: x after dropout; None: x itself.
    """
    matrices = [matrix.weight for each in layers for matrix in (each.lora_A[name], each.lora_B[name])]
    flat, dropped = x.reshape(-1, x.shape[-1]), None if dropped is None else dropped.reshape(-1, x.shape[-1])
    frozen, scalings = [each.frozen() for each in layers], [each.scaling[name] for each in layers]
    apply: Any = _LoraProducts.apply
    return [part.view(*x.shape[:-1], part.shape[-1]) for part in apply(flat, dropped, frozen, scalings, *matrices)]


class _LoraProducts(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (dropped Aᵀ) Bᵀ` of each layer; `matrices` are A and B of the first, of the second, and so on.

    `dropped` is x after dropout, or None for x itself.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        dropped: Tensor | None,
        frozen: Sequence[Frozen],
        scalings: Sequence[float],
        *matrices: Tensor,
    ) -> tuple[Tensor, ...]:
        lora_a, lora_b = _join(matrices[::2]), matrices[1::2]
        entering = x if dropped is None else dropped
        inner = entering @ lora_a.t().to(x.dtype)  # (tokens, sum of the ranks)
        results = _multiply_frozen(x, frozen)
        parts = inner.split([each.shape[1] for each in lora_b], 1)
        for result, part, each, scaling in zip(results, parts, lora_b, scalings, strict=True):
            result.addmm_(part, each.t().to(x.dtype), alpha=scaling)
        ctx.save_for_backward(entering, inner, *matrices)
        ctx.frozen, ctx.scalings = frozen, scalings
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        entering, inner, *matrices = ctx.saved_tensors
        lora_a, lora_b = _join(matrices[::2]), matrices[1::2]
        dtype, (needs_x, needs_dropped) = entering.dtype, ctx.needs_input_grad[:2]
        ranks = [each.shape[1] for each in lora_b]
        through = torch.empty_like(inner)
        of_matrices: list[Tensor | None] = []
        for gradient, part, to, each, scaling in zip(
            gradients, inner.split(ranks, 1), through.split(ranks, 1), lora_b, ctx.scalings, strict=True
        ):
            to.copy_(gradient @ each.to(dtype)).mul_(scaling)
            of_matrices += [None, (part.t() @ gradient).t().to(each.dtype).mul_(scaling)]
        of_matrices[::2] = (through.t() @ entering).to(lora_a.dtype).split(ranks)
        of_x = _sum_through_frozen(gradients, ctx.frozen) if needs_x else None
        of_dropped = through @ lora_a.to(dtype) if needs_dropped else None
        if of_x is not None and not needs_dropped:
            of_x.addmm_(through, lora_a.to(dtype))
        return of_x, of_dropped, None, None, *of_matrices


def _join(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices, one below the other."""
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices))


def _multiply_frozen(x: Tensor, layers: Sequence[Frozen]) -> list[Tensor]:
    """`x Wᵀ + bias` of each layer, multiplied in the precision of W and returned in that of x."""
    results, rounded = [], None
    for layer in layers:
        weight = layer.unpack(x.dtype)
        if weight.dtype == x.dtype:
            result = x @ weight.t()
        else:
            rounded = _round(x, weight.dtype) if rounded is None else rounded
            result = (rounded @ weight.t())[: len(x)].to(x.dtype)
        results.append(result if layer.bias is None else result.add_(layer.bias))
        del weight  # before the next one is unpacked
    return results


def _sum_through_frozen(gradients: Sequence[Tensor], layers: Sequence[Frozen]) -> Tensor:
    """The sum of `gradient W` over the layers: each W by itself, because longer sums are slower in bfloat16 on a CPU."""
    total: Tensor | None = None
    for gradient, layer in zip(gradients, layers, strict=True):
        weight = layer.unpack(gradient.dtype)
        if weight.dtype != gradient.dtype:
            product = (_round(gradient, weight.dtype) @ weight)[: len(gradient)]
            total = product.to(gradient.dtype) if total is None else total.add_(product)
        else:
            total = gradient @ weight if total is None else total.addmm_(gradient, weight)
        del weight
    assert total is not None
    return total


def _round(x: Tensor, dtype: torch.dtype) -> Tensor:
    """(tokens, width) in `dtype`, with zeros up to a multiple of `MULTIPLE` tokens."""
    rows = -(-len(x) // MULTIPLE) * MULTIPLE
    rounded = x.new_empty(rows, x.shape[1], dtype=dtype)
    rounded[: len(x)] = x
    rounded[len(x) :] = 0
    return rounded
