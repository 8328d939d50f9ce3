"""Layers that read the same input are computed together, with the results and gradients that each has alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from finetune.models.load import load_base
from finetune.recipe import AdapterRecipe
from finetune.train.fast.lora_linear import FusedLinear, join_siblings, round_frozen_weights

from .test_packing import gradients

NAMES = ("q_proj", "k_proj", "v_proj")


def attention(folder: Path, quantization: str) -> Any:
    """The attention of one block with LoRA matrices of several ranks that have an effect, and with biases."""
    base: Any = load_base(folder, AdapterRecipe(quantization=quantization), unpack=False)
    block = base.get_submodule("model.layers.0.self_attn")
    for name in NAMES:
        layer = getattr(block, name)
        layer.bias = nn.Parameter(torch.linspace(-1, 1, layer.out_features), requires_grad=False)
    config = LoraConfig(r=4, lora_alpha=6, target_modules=list(NAMES), rank_pattern={"k_proj": 2})
    config._register_custom_module({nn.Linear: FusedLinear})
    model = get_peft_model(block, config).train()
    torch.manual_seed(7)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(parameter, std=0.1)
    return model


def derive(model: Any, order: tuple[str, ...] = NAMES) -> dict[str, Tensor]:
    """The results of the three layers for one input, and all gradients."""
    block = model.base_model.model
    x = torch.randn(2, 9, block.q_proj.in_features, generator=torch.Generator().manual_seed(1)).requires_grad_()
    results = {name: getattr(block, name)(x) for name in order}
    sum((one * torch.linspace(-1, 1, one.shape[-1])).sum() for one in results.values()).backward()
    assert x.grad is not None
    derived = {**results, "x": x.grad, **gradients(model)}
    model.zero_grad()
    return {name: tensor.detach().clone() for name, tensor in derived.items()}


@pytest.mark.parametrize("rounded", [False, True])
@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
def test_siblings_have_the_results_and_gradients_of_single_layers(
    tiny_model: Path, quantization: str, rounded: bool
) -> None:
    alone, together = attention(tiny_model, quantization), attention(tiny_model, quantization)
    join_siblings(together)
    if rounded:
        round_frozen_weights(alone)
        round_frozen_weights(together)
    for order in (NAMES, NAMES[::-1]):
        expected, actual = derive(alone, order), derive(together, order)
        assert expected.keys() == actual.keys()
        assert len(expected) == 3 + 1 + 6
        for name, tensor in expected.items():
            close: dict[str, Any] = (
                {"rtol": 0.02, "atol": 0.02} if rounded and name == "x" else {}
            )  # one sum in bfloat16, not three
            torch.testing.assert_close(actual[name], tensor, **close)


def test_siblings_with_another_input_are_computed_for_that(tiny_model: Path) -> None:
    alone, together = attention(tiny_model, "none"), attention(tiny_model, "none")
    join_siblings(together)
    first, second = torch.randn(2, 1, 3, 64)
    for name, x in (("q_proj", first), ("k_proj", second), ("v_proj", first), ("q_proj", first), ("k_proj", first)):
        expected, actual = (getattr(model.base_model.model, name)(x) for model in (alone, together))
        torch.testing.assert_close(actual, expected)


def test_siblings_without_their_adapters_are_the_base_model(tiny_model: Path) -> None:
    model = attention(tiny_model, "none")
    join_siblings(model)
    x = torch.randn(1, 3, 64)
    with model.disable_adapter():
        layer = model.base_model.model.k_proj
        torch.testing.assert_close(layer(x), layer.get_base_layer()(x))
