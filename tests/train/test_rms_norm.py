"""Fused normalisation has the values and gradients of the modules that it replaces, and leaves all others alone."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.qwen3_next.modeling_qwen3_next import Qwen3NextRMSNormGated

from finetune.train.fast.rms_norm import RMSNorm, replace_rms_norms, restore_rms_norms


def model_of(kind: Any) -> nn.Sequential:
    """A module with a weight as if trained."""
    module = kind(24)
    nn.init.normal_(module.weight, std=0.5, generator=torch.Generator().manual_seed(2))
    return nn.Sequential(module).requires_grad_(False)


def derive(model: nn.Module, x: Tensor) -> list[Tensor]:
    """The result, and the gradient of the input."""
    entering = x.clone().requires_grad_()
    result = model(entering)
    (result * torch.linspace(-1, 1, result.shape[-1])).sum().backward()
    assert entering.grad is not None
    return [result.detach(), entering.grad]


@pytest.mark.parametrize("kind", [LlamaRMSNorm, Gemma3RMSNorm])
def test_normalisation_has_the_value_and_gradient_of_the_module(kind: Any) -> None:
    model, x = model_of(kind), torch.randn(2, 5, 24, generator=torch.Generator().manual_seed(1))
    expected = derive(model, x)
    replace_rms_norms(model)
    assert isinstance(model[0], RMSNorm)
    for left, right in zip(derive(model, x), expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-5, atol=1e-6)
    restore_rms_norms(model)
    assert type(model[0]) is kind
    assert torch.equal(derive(model, x)[0], expected[0])


class LimitedRMSNorm(LlamaRMSNorm):
    """Has the attributes of the module, and limits its result."""

    def forward(self, hidden_states: Tensor) -> Tensor:
        """(…, width) → (…, width)."""
        return super().forward(hidden_states).clamp(-1, 1)


@pytest.mark.parametrize("kind", [LimitedRMSNorm, Qwen3NextRMSNormGated])
def test_modules_that_compute_something_else_are_left_alone(kind: Any) -> None:
    model = model_of(kind)
    replace_rms_norms(model)
    assert type(model[0]) is kind


def test_a_weight_that_is_trained_gets_its_gradient() -> None:
    plain = model_of(LlamaRMSNorm)
    fast = copy.deepcopy(plain)
    replace_rms_norms(fast)
    x = torch.randn(3, 24)
    for model in (plain, fast):
        model.requires_grad_()
        derive(model, x)
    torch.testing.assert_close(fast[0].weight.grad, plain[0].weight.grad)
