"""SwiGLU blocks are replaced only where the replacement computes the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from transformers import FalconH1Config, FalconH1ForCausalLM, LlamaConfig, LlamaForCausalLM, PreTrainedModel
from transformers.models.llama.modeling_llama import LlamaMLP

from finetune.train.fast.swiglu import SwiGLU, replace_swiglu_blocks, restore_swiglu_blocks

from ..tiny_shape import WIDTHS

SHAPE: dict[str, Any] = WIDTHS | {"vocab_size": 90, "initializer_range": 0.2}
MAMBA: dict[str, Any] = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
TOKENS = torch.arange(3, 20)[None]


def count_replaced(model: nn.Module) -> int:
    return sum(isinstance(module, SwiGLU) for module in model.modules())


def logits(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        result: torch.Tensor = model.eval()(input_ids=TOKENS, use_cache=False).logits
    return result


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_blocks_of_the_llama_family_are_replaced_and_restored(dtype: torch.dtype) -> None:
    model = LlamaForCausalLM(LlamaConfig(**SHAPE))
    if dtype == torch.bfloat16:
        model.bfloat16()
    before, names = logits(model), list(model.state_dict())
    replace_swiglu_blocks(model)
    assert count_replaced(model) == 2
    assert torch.equal(logits(model), before)
    assert list(model.state_dict()) == names
    restore_swiglu_blocks(model)
    assert count_replaced(model) == 0
    assert torch.equal(logits(model), before)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradient_is_that_of_the_block_in_every_bit(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    block = LlamaMLP(LlamaConfig(**SHAPE)).to(dtype).requires_grad_(False)
    x = torch.randn(40, 32).to(dtype)
    gradients = []
    for module in (block, SwiGLU(block)):
        leaf = x.clone().requires_grad_()
        module(leaf).square().sum().backward()
        gradients.append(leaf.grad)
    assert gradients[0] is not None
    assert gradients[1] is not None
    assert torch.equal(gradients[0], gradients[1])


def test_block_that_scales_its_products_is_left_alone() -> None:
    model = FalconH1ForCausalLM(FalconH1Config(**SHAPE, **MAMBA, mlp_multipliers=[0.7, 0.9]))
    before = logits(model)
    replace_swiglu_blocks(model)
    assert count_replaced(model) == 0
    assert torch.equal(logits(model), before)


class Limited(LlamaMLP):
    """A block that limits its gate to a value that ordinary inputs do not reach."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width) → (…, width)."""
        gate = self.act_fn(self.gate_proj(x)).clamp(max=30)
        result: torch.Tensor = self.down_proj(gate * self.up_proj(x))
        return result


def test_block_that_limits_its_gate_is_left_alone() -> None:
    limited: Any = Limited
    model = nn.ModuleList([limited(LlamaConfig(**SHAPE))])
    replace_swiglu_blocks(model)
    assert count_replaced(model) == 0


def test_block_with_another_setting_is_compared_on_its_own() -> None:
    blocks = [
        FalconH1ForCausalLM(FalconH1Config(**SHAPE, **MAMBA, mlp_multipliers=pair)) for pair in ([1.0, 1.0], [1.0, 0.5])
    ]
    model = nn.ModuleList(block.model.layers[0] for block in blocks)
    replace_swiglu_blocks(model)
    assert [isinstance(layer.feed_forward, SwiGLU) for layer in model] == [True, False]
