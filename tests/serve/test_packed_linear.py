"""Packed linear layers: what the plain ones compute, each row by itself."""

from __future__ import annotations

import torch
from torch import nn
from torch.func import functional_call

from finetune.serve.runners.packed_linear import pack_linear_layers

MEMORY = 1 << 30


def make_layer(dtype: torch.dtype = torch.bfloat16) -> nn.Linear:
    """A layer whose weights are numbers of `dtype`, held in 32 bits."""
    torch.manual_seed(0)
    return nn.Linear(96, 80).requires_grad_(False).to(dtype).float()


def is_packed(layer: nn.Module) -> bool:
    return "forward" in vars(layer)


def test_a_packed_layer_computes_what_the_plain_one_does() -> None:
    layer = make_layer()
    rows = torch.randn(2, 33, 96)
    plain = layer(rows)
    pack_linear_layers(layer, MEMORY)
    assert is_packed(layer)
    torch.testing.assert_close(layer(rows), plain, atol=1e-6, rtol=1e-6)


def test_a_row_does_not_depend_on_those_beside_it() -> None:
    layer = make_layer()
    pack_linear_layers(layer, MEMORY)
    rows = torch.randn(37, 96)
    together = layer(rows)
    assert torch.equal(torch.cat([layer(row[None]) for row in rows]), together)


def test_weights_that_have_more_than_16_bits_are_not_rounded() -> None:
    layer = make_layer(torch.float32)
    pack_linear_layers(layer, MEMORY)
    assert not is_packed(layer)


def test_weights_too_large_for_16_bits_are_not_packed() -> None:
    layer = make_layer()
    layer.weight[0, 0] = 2.0**20
    pack_linear_layers(layer, MEMORY)
    assert not is_packed(layer)


def test_layers_beyond_the_free_memory_stay_plain() -> None:
    size = make_layer().weight.nbytes
    for memory, expected in ((2 * size, [True, True]), (size, [True, False])):
        model = nn.Sequential(make_layer(), make_layer())
        pack_linear_layers(model, memory)
        assert [is_packed(layer) for layer in model] == expected


def test_a_replaced_weight_is_the_one_that_counts() -> None:
    layer = make_layer()
    pack_linear_layers(layer, MEMORY)
    rows, other = torch.randn(3, 96), {"weight": torch.randn(80, 96), "bias": torch.randn(80)}
    expected = rows @ other["weight"].t() + other["bias"]
    torch.testing.assert_close(functional_call(layer, other, (rows,)), expected, atol=1e-4, rtol=1e-4)
