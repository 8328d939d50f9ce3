"""The fast computation is used only where it gives what the untouched model gives; else a line says what is left out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from peft import get_peft_model
from torch import nn
from transformers import (
    FalconH1Config,
    FalconH1ForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    GPT2Config,
    GPT2LMHeadModel,
    Lfm2Config,
    Lfm2ForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
    RecurrentGemmaConfig,
    RecurrentGemmaForCausalLM,
)
from transformers.models.qwen2.modeling_qwen2 import Qwen2MLP

from finetune.recipe import AdapterRecipe
from finetune.train.arguments import lora_config
from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.batches.rows import TokenRows
from finetune.train.fast.fast_path import FastPath
from finetune.train.fast.lora_linear import FusedLinear
from finetune.train.fast.swiglu import SwiGLU

from ..tiny_shape import WIDTHS

SHAPE: dict[str, Any] = WIDTHS | {"vocab_size": 90, "initializer_range": 0.2, "pad_token_id": 0}


def rows_of_length(*lengths: int) -> TokenRows:
    """Random rows, of which the last two tokens carry loss."""
    tokens = np.random.default_rng(0).integers(3, 90, sum(lengths)).astype(np.int32)
    ends = np.cumsum(lengths)
    supervised = np.isin(np.arange(len(tokens)), [*(ends - 1), *(ends - 2)])
    return TokenRows(tuple(map(str, range(len(lengths)))), tokens, supervised, ends, 0, max(lengths))


def choose(model: PreTrainedModel, *, share: bool = True, targets: str = "all-linear") -> PackedBatches | PaddedBatches:
    """The batches chosen for a model, prepared for training as the trainer does."""
    padded = PaddedBatches(NumberedRows(rows_of_length(12, 9, 21), rows_of_length(5)), 0)
    fast_path = FastPath(model, padded, replace_blocks=True)
    adapted: Any = get_peft_model(model, lora_config(AdapterRecipe(), model))
    return fast_path.choose_batches(adapted.get_base_model(), packing=True, share=share)


def count(model: nn.Module, kind: type[nn.Module]) -> int:
    return sum(isinstance(module, kind) for module in model.modules())


def qwen(kind: type[Qwen2ForCausalLM] = Qwen2ForCausalLM, dtype: torch.dtype = torch.float32) -> Qwen2ForCausalLM:
    torch.manual_seed(0)
    model: Any = kind(Qwen2Config(**SHAPE))
    converted: Qwen2ForCausalLM = model.to(dtype)
    return converted


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("share", [True, False])
def test_ordinary_model_is_trained_on_packed_rows(
    share: bool, dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = qwen(dtype=dtype)
    batches = choose(model, share=share)
    assert isinstance(batches, PackedBatches)
    assert batches.share == share
    assert count(model, SwiGLU) == 2
    assert caplog.text == ""


def shift(states: torch.Tensor) -> torch.Tensor:
    """The states of the tokens before; 0 before the first."""
    return nn.functional.pad(states[:, :-1], (0, 0, 1, 0))


class Forgetful(Qwen2ForCausalLM):
    """A model in which every token sees its neighbour in the sequence, as with a convolution."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.embed_tokens.register_forward_hook(lambda module, inputs, out: out + shift(out))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_model_that_mixes_packed_rows_is_trained_on_padded_ones(
    dtype: torch.dtype, caplog: pytest.LogCaptureFixture
) -> None:
    model = qwen(Forgetful, dtype)
    assert isinstance(choose(model), PaddedBatches)
    assert model.config._attn_implementation == "sdpa"
    assert "Training does without packed rows, which is slower: with them, this model's hidden states" in caplog.text


def test_window_that_packed_attention_does_not_see_is_noticed(caplog: pytest.LogCaptureFixture) -> None:
    torch.manual_seed(0)
    model = Gemma2ForCausalLM(Gemma2Config(**SHAPE, head_dim=8, query_pre_attn_scalar=8, sliding_window=16))
    for layer in model.model.layers:
        layer.self_attn.sliding_window = None
    assert isinstance(choose(model), PaddedBatches)
    assert model.config._attn_implementation == "eager"
    assert "without packed rows" in caplog.text


class ThreeDimensional(Qwen2MLP):
    """A block that computes something else for batches than for single vectors."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(…, width) → (…, width)."""
        product = self.act_fn(self.gate_proj(x)) * self.up_proj(x)
        result: torch.Tensor = self.down_proj(product) * (1.5 if x.dim() == 3 else 1)
        return result


def test_replaced_block_that_computes_something_else_is_put_back(caplog: pytest.LogCaptureFixture) -> None:
    model = qwen()
    block: Any = ThreeDimensional
    for layer in model.model.layers:
        layer.mlp = block(model.config)
    choose(model)
    assert count(model, SwiGLU) == 0
    assert count(model, ThreeDimensional) == 2
    assert "without fused feed-forward blocks" in caplog.text


class Doubled(nn.Linear):
    """A linear layer that does not only multiply with its weight."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(…, in features) → (…, out features)."""
        return 2 * super().forward(input)


def test_layer_that_is_not_only_a_product_is_not_fused(caplog: pytest.LogCaptureFixture) -> None:
    model = qwen()
    for layer in model.model.layers:
        layer.self_attn.o_proj.__class__ = Doubled
    choose(model)
    assert count(model, FusedLinear) == 0
    assert "without fused LoRA layers" in caplog.text


class Capped(Qwen2ForCausalLM):
    """A model that bounds its logits without saying so in its configuration."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        output = super().forward(*args, **kwargs)
        output.logits = 0.5 * torch.tanh(output.logits)
        return output


def test_logits_that_the_fast_head_does_not_know_are_the_models_own(caplog: pytest.LogCaptureFixture) -> None:
    batches = choose(qwen(Capped))
    assert isinstance(batches, PaddedBatches)
    assert batches.own_logits
    assert "the model's own output head" in caplog.text


def test_weights_that_are_not_finite_are_called_so(caplog: pytest.LogCaptureFixture) -> None:
    model = qwen()
    model.model.norm.weight.data[3] = torch.nan
    choose(model)
    (line,) = caplog.messages
    assert "not finite, even before the first step: check its files, or try --compute-dtype float32" in line


MAMBA: dict[str, Any] = {"mamba_d_ssm": 32, "mamba_n_heads": 4, "mamba_d_head": 8, "mamba_d_state": 8}
GRIFFIN: dict[str, Any] = {"lru_width": 32, "attention_window_size": 8}
STRUCTURES: dict[str, tuple[type[Any], Any, str]] = {
    "convolutions": (Lfm2ForCausalLM, Lfm2Config(**SHAPE, layer_types=["conv", "full_attention"]), "convolutions"),
    "state space": (FalconH1ForCausalLM, FalconH1Config(**SHAPE, **MAMBA), "carries a state"),
    "recurrence": (RecurrentGemmaForCausalLM, RecurrentGemmaConfig(**SHAPE, **GRIFFIN), "carries a state"),
    "type of layer": (
        Qwen2ForCausalLM,
        Qwen2Config(**SHAPE, layer_types=["chunked_attention"] * 2),
        "chunked_attention",
    ),
}


@pytest.mark.parametrize("name", STRUCTURES)
def test_structure_that_rules_packing_out_needs_no_trial(name: str, caplog: pytest.LogCaptureFixture) -> None:
    kind, config, reason = STRUCTURES[name]
    model = kind(config)
    assert isinstance(choose(model), PaddedBatches)
    assert count(model, SwiGLU) == count(model, FusedLinear) == 0
    (line,) = caplog.messages
    assert reason in line


def test_dropout_in_the_base_model_ends_sharing(caplog: pytest.LogCaptureFixture) -> None:
    batches = choose(PhiForCausalLM(PhiConfig(**SHAPE, resid_pdrop=0.1)))
    assert isinstance(batches, PackedBatches)
    assert not batches.share


@pytest.mark.parametrize("name", ["attn_pdrop", "resid_pdrop"])
def test_only_attention_dropout_ends_packing(name: str, caplog: pytest.LogCaptureFixture) -> None:
    rates: dict[str, Any] = {"attn_pdrop": 0.0, "resid_pdrop": 0.0, "embd_pdrop": 0.0} | {name: 0.1}
    batches = choose(
        GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=32, n_layer=2, n_head=4, n_positions=64, **rates))
    )
    assert isinstance(batches, PaddedBatches) == (name == "attn_pdrop")
    assert ("attention dropout" in caplog.text) == (name == "attn_pdrop")


def test_dropout_that_reaches_packed_attention_is_an_error() -> None:
    model = GPT2LMHeadModel(GPT2Config(vocab_size=90, n_embd=32, n_layer=1, n_head=4, attn_pdrop=0.0))
    batches = choose(model)
    block: Any = model.transformer.h[0]
    block.attn.attn_dropout.p = 0.1
    batch = batches([{"number": 0}])
    with pytest.raises(AssertionError):
        model.train()(input_ids=batch["input_ids"], position_ids=batch["position_ids"], layout=batch["layout"])
