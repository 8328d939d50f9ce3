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
            return multiply([self], name, x, self.rounded, dropout(x))[0]
        if self.siblings is not None and (shared := self.siblings.result(self, name, x)) is not None:
            return shared
        return multiply([self], name, x, self.rounded)[0]

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
        state = base.state.SCB if isinstance(base, Int8Linear) else getattr(base.weight, "quant_state", None)
        return Frozen(base.weight, state, base.bias)


class Siblings:
    """Layers that read the same input: the first one that gets it computes all, and the others find their results.

    Their LoRA matrices then need one product instead of one for each layer, and their input is rounded once.
    """

    def __init__(self, layers: Sequence[FusedLinear]) -> None:
        self.layers = layers
        self.rounded: Tensor | None = (
            None  # all their weights, one below the other; those of the layers are views of it
        )
        self._input: Tensor | None = None
        self._results: dict[FusedLinear, Tensor] = {}

    def result(self, layer: FusedLinear, name: str, x: Tensor) -> Tensor | None:
        """The result of `layer` for x, or None if not all layers have a plain adapter of this name."""
        if self._input is not x or layer not in self._results:
            if any(each.plain_adapter(x) != name for each in self.layers):
                return None
            results = multiply(self.layers, name, x, self.rounded)
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
        if not isinstance(layer, FusedLinear) or layer.fan_in_fan_out or layer.rounded is not None:
            continue
        together = [layer] if layer.siblings is None else layer.siblings.layers
        rounded = torch.cat([unpack_weight(each.get_base_layer()).to(torch.bfloat16) for each in together])
        for each, part in zip(together, rounded.split([each.out_features for each in together]), strict=True):
            each.rounded = part
        if layer.siblings is not None:
            layer.siblings.rounded = rounded


@dataclass(frozen=True)
class Frozen:
    """The weight of a frozen linear layer, which may be packed in 4 or 8 bits, and its bias."""

    weight: Tensor
    state: QuantState | Tensor | None
    bias: Tensor | None

    def unpack(self, dtype: torch.dtype) -> Tensor:
        """(out features, in features)."""
        if self.state is None:
            return self.weight
        if isinstance(self.state, Tensor):
            return int8_vectorwise_dequant(self.weight, self.state).to(dtype)
        return dequantize_4bit(self.weight, self.state).to(dtype)


def multiply(
    layers: Sequence[FusedLinear], name: str, x: Tensor, rounded: Tensor | None, dropped: Tensor | None = None
) -> list[Tensor]:
    """The results of layers with the adapter `name` for one input: (…, in features) → (…, out features) each.

    Args:
        rounded: the weights of all layers in bfloat16, one below the other, if the products are in bfloat16.
        dropped: x after dropout; None: x itself.
    """
    matrices = [matrix.weight for each in layers for matrix in (each.lora_A[name], each.lora_B[name])]
    flat, dropped = x.reshape(-1, x.shape[-1]), None if dropped is None else dropped.reshape(-1, x.shape[-1])
    apply: Any = _LoraProducts.apply
    products = Products([each.frozen() for each in layers], [each.scaling[name] for each in layers], rounded)
    return [part.view(*x.shape[:-1], part.shape[-1]) for part in apply(flat, dropped, products, *matrices)]


@dataclass(frozen=True)
class Products:
    """The products with the frozen weights of layers that read the same input."""

    layers: Sequence[Frozen]
    scalings: Sequence[float]  # of their LoRA matrices
    rounded: Tensor | None  # all weights in bfloat16, one below the other

    def forward(self, x: Tensor, widths: Sequence[int]) -> list[Tensor]:
        """`x Wᵀ + bias` of each layer, which has `widths` out features."""
        if self.rounded is None:
            return [_add_bias(x @ layer.unpack(x.dtype).t(), layer.bias) for layer in self.layers]
        product = _round([x]) @ self.rounded.t()
        parts = product[: len(x)].split(list(widths), 1)
        return [_add_bias(part.to(x.dtype), layer.bias) for part, layer in zip(parts, self.layers, strict=True)]

    def backward(self, gradients: Sequence[Tensor]) -> Tensor:
        """The sum of `gradient W` over the layers."""
        first = gradients[0]
        if self.rounded is not None:
            return (_round(gradients) @ self.rounded)[: len(first)].to(first.dtype)
        result = first @ self.layers[0].unpack(first.dtype)
        for gradient, layer in zip(gradients[1:], self.layers[1:], strict=True):
            result.addmm_(gradient, layer.unpack(first.dtype))
        return result


class _LoraProducts(torch.autograd.Function):
    """`x Wᵀ + bias + scaling · (dropped Aᵀ) Bᵀ` of each layer; `matrices` are A and B of the first, of the second, and so on.

    `dropped` is x after dropout, or None for x itself.
    """

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, dropped: Tensor | None, products: Products, *matrices: Tensor
    ) -> tuple[Tensor, ...]:
        lora_a, lora_b = _join(matrices[::2]), matrices[1::2]
        entering = x if dropped is None else dropped
        inner = entering @ lora_a.t().to(x.dtype)  # (tokens, sum of the ranks)
        results = products.forward(x, [len(each) for each in lora_b])
        parts = inner.split([each.shape[1] for each in lora_b], 1)
        for result, part, each, scaling in zip(results, parts, lora_b, products.scalings, strict=True):
            result.addmm_(part, each.t().to(x.dtype), alpha=scaling)
        ctx.save_for_backward(entering, inner, *matrices)
        ctx.products = products
        return tuple(results)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        entering, inner, *matrices = ctx.saved_tensors
        products, lora_a, lora_b = ctx.products, _join(matrices[::2]), matrices[1::2]
        dtype, (needs_x, needs_dropped) = entering.dtype, ctx.needs_input_grad[:2]
        ranks = [each.shape[1] for each in lora_b]
        through = torch.empty_like(inner)
        of_matrices: list[Tensor | None] = []
        for gradient, part, to, each, scaling in zip(
            gradients, inner.split(ranks, 1), through.split(ranks, 1), lora_b, products.scalings, strict=True
        ):
            to.copy_(gradient @ each.to(dtype)).mul_(scaling)
            of_matrices += [None, (part.t() @ gradient).t().to(each.dtype).mul_(scaling)]
        of_matrices[::2] = (through.t() @ entering).to(lora_a.dtype).split(ranks)
        of_x = products.backward(gradients) if needs_x else None
        of_dropped = through @ lora_a.to(dtype) if needs_dropped else None
        if of_x is not None and not needs_dropped:
            of_x.addmm_(through, lora_a.to(dtype))
        return of_x, of_dropped, None, *of_matrices


def _join(matrices: Sequence[Tensor]) -> Tensor:
    """Matrices, one below the other."""
    return matrices[0] if len(matrices) == 1 else torch.cat(list(matrices))


def _add_bias(product: Tensor, bias: Tensor | None) -> Tensor:
    return product if bias is None else product.add_(bias)


def _round(parts: Sequence[Tensor]) -> Tensor:
    """Parts of the same tokens, side by side in bfloat16, with zeros up to a multiple of `MULTIPLE` tokens."""
    tokens, widths = len(parts[0]), [part.shape[1] for part in parts]
    rows = -(-tokens // MULTIPLE) * MULTIPLE
    rounded = parts[0].new_empty(rows, sum(widths), dtype=torch.bfloat16)
    rounded[tokens:] = 0
    for place, part in zip(rounded[:tokens].split(widths, 1), parts, strict=True):
        place.copy_(part)
    return rounded
