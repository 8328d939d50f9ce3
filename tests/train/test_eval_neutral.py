"""An evaluation during training changes nothing: bitsandbytes must not repack 4-bit weights."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model

from finetune.models.load import load_base
from finetune.models.quantize import keep_linear4bit_unpacked, quantization_config, unpack_on_cpu
from finetune.recipe import AdapterRecipe


def packed_model(folder: Path) -> Any:
    """The model with the layers of bitsandbytes, set as on a CPU with AVX512-BF16."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(
        folder,
        quantization_config=quantization_config("nf4", torch.float32),
        device_map={"": "cpu"},
        dtype=torch.float32,
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = True
    return model


def gradients(model: Any, ids: torch.Tensor) -> list[torch.Tensor]:
    model.train()
    model.zero_grad()
    model(input_ids=ids, labels=ids).loss.backward()
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.requires_grad]


def with_adapter(model: Any) -> Any:
    torch.manual_seed(0)
    return get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False))


@pytest.mark.parametrize("how", ["kept packed in 4 bit", "unpacked once", "as slmtune loads it"])
def test_gradients_are_the_same_before_and_after_an_evaluation(tiny_model: Path, how: str) -> None:
    if how == "as slmtune loads it":
        model = load_base(tiny_model, AdapterRecipe())
    else:
        model = packed_model(tiny_model)
        if how == "unpacked once":
            assert unpack_on_cpu(model)
        else:
            keep_linear4bit_unpacked(model)
    model = with_adapter(model)
    ids = torch.arange(3, 35).view(2, 16)
    before = gradients(model, ids)
    model.eval()
    with torch.no_grad():
        model(input_ids=ids)
    after = gradients(model, ids)
    assert max(float(gradient.abs().max()) for gradient in before) > 0
    for left, right in zip(before, after, strict=True):
        assert torch.equal(left, right)


def test_bitsandbytes_still_needs_the_workaround(tiny_model: Path) -> None:
    """Without it, one evaluation repacks the weights. If this fails, the workaround can go."""
    model = packed_model(tiny_model)
    layer = next(module for module in model.modules() if isinstance(module, Linear4bit))
    before = layer.weight.data.clone()
    model.eval()
    try:
        with torch.no_grad():
            model(input_ids=torch.arange(3, 35).view(2, 16))
    except (RuntimeError, NotImplementedError, AttributeError):
        pass  # a CPU without these instructions repacks, but has no kernel for the result
    assert layer.weight.data.shape != before.shape or not torch.equal(layer.weight.data, before)


def test_unpacked_layers_have_the_same_numbers(tiny_model: Path) -> None:
    ids = torch.arange(3, 35).view(2, 16)
    packed = packed_model(tiny_model)
    keep_linear4bit_unpacked(packed)
    unpacked = packed_model(tiny_model)
    assert unpack_on_cpu(unpacked)
    assert not any(isinstance(module, Linear4bit) for module in unpacked.modules())
    with torch.no_grad():
        torch.testing.assert_close(packed(input_ids=ids).logits, unpacked(input_ids=ids).logits)
