"""Base weights of 4 or 8 bits: their quantisation, and workarounds that make bitsandbytes correct and fast on a CPU."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import finetune.models.eager_bitsandbytes  # isort: skip # noqa: F401
import torch
from bitsandbytes.functional import QuantState, dequantize_4bit, dequantize_blockwise, int8_vectorwise_dequant
from bitsandbytes.nn import Int8Params, Linear4bit, Linear8bitLt, Params4bit
from torch import Tensor, nn
from transformers import BitsAndBytesConfig, PreTrainedModel
from transformers.pytorch_utils import Conv1D
from transformers.quantizers.auto import AutoHfQuantizer

from finetune.machine import device_name, format_bytes, free_memory
from finetune.recipe.adapter import FOUR_BIT, Quantization

MEMORY_SHARE = 0.5  # of the free memory, for unpacked weights

log = logging.getLogger(__name__)


def quantization_config(
    kind: Quantization, compute_dtype: torch.dtype, plain: Sequence[str] | None = None
) -> BitsAndBytesConfig:
    """4 bits with double quantisation (Dettmers et al., QLoRA, 2023, section 3), or 8 bits.

    Every setting is explicit, because `load_in_4bit=True` alone means FP4 without double quantisation.

    Args:
        plain: modules that keep the compute precision; None: those that transformers leaves out, such as the output head.
    """
    skipped = None if plain is None else list(plain)
    if kind not in FOUR_BIT:
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=skipped)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type=kind,
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=compute_dtype,
        bnb_4bit_quant_storage=torch.uint8,
        llm_int8_skip_modules=skipped,
    )


@dataclass(frozen=True)
class Rounding:
    """What quantisation makes of the weights of a model: the numbers with which its layers then compute."""

    kind: Quantization
    compute_dtype: torch.dtype
    layers: Mapping[str, bool]  # the path of each quantised layer, and whether its weights are (in, out) features

    def apply(self, layer: str, weight: Tensor) -> Tensor:
        """The weights of a layer as `unpack_weight` returns them, but in the orientation of `weight`."""
        is_transposed = self.layers[layer]
        weight = (weight.t() if is_transposed else weight).to(device_name(), self.compute_dtype)
        packed: Any  # quantised when it is moved
        if self.kind in FOUR_BIT:
            packed = Params4bit(
                weight, requires_grad=False, compress_statistics=True, quant_type=self.kind, quant_storage=torch.uint8
            )
            packed = packed.to(weight.device)
            rounded = dequantize_4bit(packed.data, packed.quant_state)
        else:
            packed = Int8Params(weight, requires_grad=False, has_fp16_weights=False)
            packed = packed.to(weight.device)
            rounded = int8_vectorwise_dequant(packed.data, packed.SCB)
        rounded = rounded.to(self.compute_dtype).cpu()
        return rounded.t().contiguous() if is_transposed else rounded


def rounding_of(
    model: PreTrainedModel, kind: Quantization, compute_dtype: torch.dtype, plain: Sequence[str] | None = None
) -> Rounding:
    """How the layers of a model are quantised. The model needs no memory for its weights; it is changed.

    Args:
        plain: as in `quantization_config`.
    """
    quantizer: Any = AutoHfQuantizer.from_config(quantization_config(kind, compute_dtype, plain), pre_quantized=False)
    quantizer.preprocess_model(model, device_map=None)
    layers = {
        name: module.source_cls is Conv1D
        for name, module in model.named_modules()
        if isinstance(module, (Linear4bit, Linear8bitLt))
    }
    return Rounding(kind, compute_dtype, layers)


class Int8Linear(Linear8bitLt):
    """A linear layer with int8 weights and a scale per row, which computes with exactly the numbers that these mean.

    The layer of bitsandbytes may round its input to int8 as well, and decides over the whole batch which columns it does not
    round: rows then change each other's results (bitsandbytes 0.50.2 on a CPU: by up to 3.7 in a logit of SmolLM2-135M).
    """

    compute_dtype: torch.dtype

    def forward(self, x: Tensor) -> Tensor:
        """(…, in features) → (…, out features)."""
        apply: Any = _Int8Product.apply
        result: Tensor = apply(x, self.weight, self.state.SCB)
        return result if self.bias is None else result + self.bias.to(result.dtype)


class _Int8Product(torch.autograd.Function):
    """`x Wᵀ`; W is unpacked for each product, so that autograd does not keep it."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, scales: Tensor) -> Tensor:
        ctx.save_for_backward(weight, scales)
        result: Tensor = x @ int8_vectorwise_dequant(weight, scales).to(x.dtype).t()
        return result

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        weight, scales = ctx.saved_tensors
        (gradient,) = gradients
        return gradient @ int8_vectorwise_dequant(weight, scales).to(gradient.dtype), None, None


def compute_from_int8(model: nn.Module, compute_dtype: torch.dtype) -> None:
    """Let the 8-bit layers of a model compute as `Int8Linear` does."""
    for module in model.modules():
        if isinstance(module, Linear8bitLt):
            layer: Any = module
            layer.__class__, layer.compute_dtype = Int8Linear, compute_dtype
            layer.state.SCB = layer.weight.SCB


def unpack_weight(layer: nn.Module) -> Tensor:
    """The weights of a linear layer as numbers in its compute precision, (out features, in features)."""
    module: Any = layer
    weight: Tensor = module.weight
    if isinstance(layer, Int8Linear):
        weight = int8_vectorwise_dequant(weight.data, module.state.SCB).to(layer.compute_dtype)
    if isinstance(layer, Linear4bit):
        weight = dequantize_4bit(weight.data, module.weight.quant_state).to(layer.compute_dtype)
    return weight


def keep_linear4bit_unpacked(model: nn.Module) -> None:
    """Stop bitsandbytes from repacking 4-bit weights for CPU inference, which makes later gradients wrong.

    `Linear4bit.forward` repacks when the layer is in eval mode and the input needs no gradient; the backward pass then
    reads the packed weights as if they were not (bitsandbytes 0.50.2, CPUs with AVX512-BF16; related:
    https://github.com/bitsandbytes-foundation/bitsandbytes/issues/2078). Remove when a release passes
    tests/train/test_eval_neutral.py without it.
    """
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False


def unpack_on_cpu(model: nn.Module) -> bool:
    """Replace quantised layers on a CPU with plain ones that have the same values in the compute precision.

    bitsandbytes unpacks the weights of a layer on every pass and, without AVX512, multiplies them with a slow kernel if
    no gradient is needed. Unpacking once gives the same numbers faster, for up to 8 times the memory. It is done if it takes
    at most half of the free memory. Returns whether it was done.
    """
    layers = _quantized_layers(model)
    if not layers or any(layer.weight.device.type != "cpu" for layer in layers.values()):
        return False
    needed = sum(
        layer.in_features * layer.out_features * torch.finfo(layer.compute_dtype).bits // 8 for layer in layers.values()
    )
    if needed > MEMORY_SHARE * free_memory():
        log.info("Weights stay quantised: unpacking them would take %s.", format_bytes(needed))
        return False
    unpack_layers(model)
    return True


def unpack_layers(model: nn.Module) -> None:
    """Replace quantised layers with plain ones that have the same values in the compute precision."""
    for name, layer in _quantized_layers(model).items():
        weight = unpack_weight(layer)
        plain: nn.Linear | Conv1D
        if getattr(layer, "source_cls", None) is Conv1D:  # transformers transposed it for bitsandbytes, as in GPT-2
            plain, weight = Conv1D(layer.out_features, layer.in_features), weight.t().contiguous()
        else:
            plain = nn.Linear(layer.in_features, layer.out_features, bias=layer.bias is not None, device="meta")
        plain.weight = nn.Parameter(weight, requires_grad=False)
        if layer.bias is not None:
            plain.bias = layer.bias
        parent, _, child = name.rpartition(".")
        setattr(model.get_submodule(parent), child, plain)


def _quantized_layers(model: nn.Module) -> dict[str, Linear4bit | Int8Linear]:
    return {name: module for name, module in model.named_modules() if isinstance(module, (Linear4bit, Int8Linear))}


def unpack_scales(model: nn.Module) -> None:
    """Store the block scales of 4-bit layers on a CPU as plain numbers instead of quantising them to 8 bits again.

    The values are the same, at 1/16 instead of 1/64 byte per weight, and unpacking a layer takes one pass instead of three.
    """
    for module in model.modules():
        if not isinstance(module, Linear4bit) or module.weight.device.type != "cpu":
            continue
        weight: Any = module.weight
        nested = weight.quant_state
        if not nested.nested:
            continue
        weight.quant_state = QuantState(
            absmax=dequantize_blockwise(nested.absmax, nested.state2) + nested.offset,
            shape=nested.shape,
            code=nested.code,
            blocksize=nested.blocksize,
            quant_type=nested.quant_type,
            dtype=nested.dtype,
        )
        module.quant_state = weight.quant_state
