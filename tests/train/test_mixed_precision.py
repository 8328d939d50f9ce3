"""Products in bfloat16, LoRA matrices in float32: as near to float32 as PEFT's own layers, and resumed to the same bytes."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file
from torch import Tensor, nn

from finetune.models.load import load_base
from finetune.models.quantize import keep_linear4bit_unpacked, unpack_weight
from finetune.recipe import AdapterRecipe
from finetune.recipe.adapter import Quantization
from finetune.train import TrainRequest, train
from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.fast import prefix_attention
from finetune.train.fast.cpu_attention import dot_product_attention
from finetune.train.fast.lora_linear import FusedLinear, round_frozen_weights
from finetune.train.fast.loss import summed_loss
from finetune.train.fast.swiglu import replace_swiglu_blocks

from ..command import Command
from .kills import checkpoints, newest, outcome, training
from .test_eval_neutral import packed_model
from .test_packing import ARCHITECTURES, adapted, batch_of, gradients, prompts, rows_of

SEEDS = 3
# Largest values in 48 trials (12 seeds, 4 architectures) on a CPU with AMX: PEFT's gradients in bfloat16 differ from those
# in float32 by 4.4 % (root of the summed squares, over all matrices), the fused ones by 1.37 times as much in one trial and
# 1.03 times on average; the losses differ by 0.16 % and 0.21 %.
GRADIENT_BOUND = 0.06
TIMES_PEFT = 1.25
LOSS_BOUND = 0.005


def model_of(name: str, dtype: torch.dtype, seed: int) -> Any:
    """A model whose weights are bfloat16 numbers, in `dtype`."""
    torch.manual_seed(seed)
    model = ARCHITECTURES[name]().eval().to(torch.bfloat16).to(dtype)
    model.set_attn_implementation("eager" if "softcaps" in name else "sdpa")
    return model


def mean_loss(model: Any, collate: Any) -> tuple[float, Tensor]:
    """The mean loss per supervised token, and its gradients in one vector."""
    batch = batch_of(prompts(), collate)
    loss = summed_loss(model.get_base_model(), batch) / batch["counts"].supervised_tokens
    loss.backward()
    return float(loss.detach()), torch.cat([gradient.flatten() for gradient in gradients(model).values()]).double()


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_bfloat16_is_as_near_to_float32_as_the_layers_of_peft(name: str) -> None:
    numbered = NumberedRows(prompts(), rows_of([[1, 2, 3]]))
    prefix_attention.register()
    errors = torch.zeros(2, dtype=torch.float64)
    for seed in range(SEEDS):
        exact, exact_gradient = mean_loss(
            adapted(model_of(name, torch.float32, seed), fused=False), PaddedBatches(numbered, 0)
        )
        plain, plain_gradient = mean_loss(
            adapted(model_of(name, torch.bfloat16, seed), fused=False), PaddedBatches(numbered, 0)
        )
        fast_model = model_of(name, torch.bfloat16, seed)
        replace_swiglu_blocks(fast_model)
        fast_model.set_attn_implementation(prefix_attention.PACKED)
        fast, fast_gradient = mean_loss(adapted(fast_model, fused=True), PackedBatches(numbered, share=True))
        assert [plain, fast] == pytest.approx([exact, exact], rel=LOSS_BOUND)
        distances = [(gradient - exact_gradient).norm() for gradient in (plain_gradient, fast_gradient)]
        assert distances[1] < GRADIENT_BOUND * exact_gradient.norm()
        errors += torch.stack(distances).square()
    of_peft, of_fused = errors.sqrt().tolist()
    assert of_fused < TIMES_PEFT * of_peft


@pytest.mark.parametrize("masked", [False, True])
def test_attention_in_bfloat16_has_the_value_of_torch_and_more_exact_gradients(masked: bool) -> None:
    draw = torch.Generator().manual_seed(1)
    hidden = torch.ones(20, 33, dtype=torch.bool).triu(14)
    shapes = {
        "query": (3, 6, 20, 16),
        "key": (3, 2, 33 if masked else 20, 16),
        "value": (3, 2, 33 if masked else 20, 16),
    }
    inputs = {name: torch.randn(shape, generator=draw).bfloat16() for name, shape in shapes.items()}
    toward = torch.randn(shapes["query"], generator=draw)

    def attend(function: Any, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        tensors = {name: tensor.to(dtype).requires_grad_() for name, tensor in inputs.items()}
        mask = torch.zeros(20, 33, dtype=dtype).masked_fill(hidden, float("-inf")) if masked else None
        result = function(**tensors, attn_mask=mask, is_causal=not masked, scale=0.3, enable_gqa=True)
        derived = torch.autograd.grad(result, list(tensors.values()), toward.to(dtype))
        return result, torch.cat([gradient.flatten() for gradient in derived]).double()

    plain = nn.functional.scaled_dot_product_attention
    (_, exact), (expected, of_torch), (actual, own) = (
        attend(plain, torch.float32),
        attend(plain, torch.bfloat16),
        attend(dot_product_attention, torch.bfloat16),
    )
    assert torch.equal(actual, expected)
    assert 0 < (own - exact).norm() < (of_torch - exact).norm() < 0.02 * exact.norm()


def layer(base: nn.Module, fused: bool, **options: Any) -> Any:
    """A LoRA layer over one linear layer, with matrices that have an effect."""
    config = LoraConfig(r=4, lora_alpha=6, target_modules=["0"], **options)
    if fused:
        config._register_custom_module({nn.Linear: FusedLinear})
    wrapped = get_peft_model(nn.Sequential(base), config).train()
    torch.manual_seed(7)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name and "magnitude" not in name:
            nn.init.normal_(parameter, std=0.1)
    return wrapped


def output_and_gradients(model: Any, dtype: torch.dtype) -> list[Tensor]:
    width = model.base_model.model[0].in_features
    x = torch.randn(2, 9, width, generator=torch.Generator().manual_seed(1)).to(dtype).requires_grad_()
    torch.manual_seed(3)  # for the masks of dropout
    result = model(x)
    result.float().square().sum().backward()
    assert x.grad is not None
    return [result.detach(), x.grad, *gradients(model).values()]


@pytest.mark.parametrize(
    "options", [{"lora_dropout": 0.3}, {"use_dora": True}, {"lora_bias": True}, {"use_rslora": True}]
)
def test_every_kind_of_lora_has_the_result_and_gradients_of_peft(options: dict[str, Any]) -> None:
    base = nn.Linear(32, 24)
    actual = output_and_gradients(layer(copy.deepcopy(base), True, **options), torch.float32)
    expected = output_and_gradients(layer(base, False, **options), torch.float32)
    assert len(expected) >= 4
    for left, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(left, right)


@pytest.mark.parametrize("in_4bit", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_a_layer_keeps_no_copy_in_float32_and_gives_gradients_in_float32(
    tiny_model: Path, in_4bit: bool, dropout: float
) -> None:
    recipe = AdapterRecipe(quantization="nf4" if in_4bit else "none", compute_dtype="bfloat16")
    loaded = load_base(tiny_model, recipe, unpack=False).get_submodule("model.layers.0.mlp.gate_proj")
    assert isinstance(loaded, Linear4bit) == in_4bit
    model = layer(loaded, True, lora_dropout=dropout)
    parameters = {parameter.data_ptr() for parameter in model.parameters()}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    x = torch.randn(9, 64).bfloat16().requires_grad_()
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        result = model(x)
    assert result.dtype == torch.bfloat16
    activations = [tensor for tensor in kept if tensor.data_ptr() not in parameters]
    assert {tensor.dtype for tensor in activations} <= {torch.bfloat16, torch.bool}
    assert sum(tensor.numel() for tensor in activations) == 9 * (64 + 4 + (64 if dropout else 0))  # and a mask
    result.sum().backward()
    assert {gradient.dtype for gradient in gradients(model).values()} == {torch.float32}


@pytest.mark.parametrize("quantization", ["nf4", "int8", "none"])
@pytest.mark.parametrize("biased", [False, True])
def test_rounded_weights_give_the_result_and_gradients_of_a_plain_product_in_bfloat16(
    tiny_model: Path, quantization: Quantization, biased: bool
) -> None:
    loaded: Any = load_base(tiny_model, AdapterRecipe(quantization=quantization), unpack=False)
    base = loaded.get_submodule("model.layers.0.mlp.gate_proj")
    if biased:
        base.bias = nn.Parameter(torch.linspace(-1, 1, base.out_features), requires_grad=False)
    model = layer(base, True)
    weight = unpack_weight(base).bfloat16()
    plain = nn.Linear(base.in_features, base.out_features, bias=False)
    plain.weight = nn.Parameter(torch.zeros_like(plain.weight), requires_grad=False)
    update = layer(plain, False)

    def reference(x: Tensor) -> Tensor:
        product: Tensor = (x.bfloat16() @ weight.t()).float() + update(x)
        return product + base.bias if biased else product

    def derive(function: Any, trained: Any) -> list[Tensor]:
        x = torch.randn(9, base.in_features, generator=torch.Generator().manual_seed(1)).requires_grad_()
        result = function(x)
        assert result.dtype == torch.float32
        (result * torch.linspace(-1, 1, result.shape[-1])).sum().backward()
        assert x.grad is not None
        return [result.detach(), x.grad, *gradients(trained).values()]

    exact = derive(model, model)
    model.zero_grad()
    round_frozen_weights(model)
    rounded = derive(model, model)
    for left, right in zip(rounded, derive(reference, update), strict=True):
        torch.testing.assert_close(left, right)
    assert 0 < (rounded[0] - exact[0]).norm() < 0.01 * exact[0].norm()


def test_weights_with_quantised_scales_give_the_gradients_of_peft(tiny_model: Path) -> None:
    """As on a GPU; on a CPU, slmtune stores the scales as plain numbers."""
    model = packed_model(tiny_model)
    keep_linear4bit_unpacked(model)
    base = model.get_submodule("model.layers.0.mlp.down_proj")
    assert base.weight.quant_state.nested
    expected = output_and_gradients(layer(base, False), torch.float32)
    actual = output_and_gradients(layer(base, True), torch.float32)
    assert len(expected) == 4
    for left, right in zip(actual, expected, strict=True):
        torch.testing.assert_close(left, right, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["bfloat16", "mixed"])
def test_killed_run_in_bfloat16_resumes_to_the_same_bytes_and_is_evaluated(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, precision: str
) -> None:
    arguments = training(tiny_model, tiny_corpus, compute_dtype=precision, max_steps=8)
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    whole.mkdir()
    killed.mkdir()
    run = Command(*arguments, cwd=whole)
    assert run.wait() == 0, run.stderr
    assert run.result["precision"] == precision
    assert {tensor.dtype for tensor in load_file(whole / "adapter/adapter_model.safetensors").values()} == {
        torch.float32
    }
    losses = [line["loss"] for line in outcome(whole)["journal"] if "loss" in line]
    assert losses[-1] < losses[0] - 0.5
    first = Command(*arguments, cwd=killed)
    assert first.until(lambda: bool(checkpoints(killed)) and newest(killed) >= 2), first.stderr
    first.kill()
    second = Command(*arguments, "--resume", cwd=killed)
    assert second.wait() == 0, second.stderr
    assert second.result["resumed_from"]
    assert outcome(killed) == outcome(whole)
    words = ("eval", "adapter", "--corpus", tiny_corpus, "--model", tiny_model, "--limit", 4, "--max-new-tokens", 4)
    evaluation = Command(*words, "--no-forgetting", cwd=whole)
    assert evaluation.wait() == 0, evaluation.stderr


def test_training_changes_no_precision_setting_and_heeds_no_autocast(
    tiny_model: Path, tiny_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def settings() -> list[object]:
        backends: Any = torch.backends
        flags = [torch.get_float32_matmul_precision(), backends.cuda.matmul.allow_tf32, backends.cudnn.allow_tf32]
        return [*flags, backends.fp32_precision, backends.mkldnn.matmul.fp32_precision]

    before = settings()
    assert before[:2] == ["highest", False]
    recipe = AdapterRecipe(model=str(tiny_model), max_steps=2, save_steps=0, eval_steps=0)
    train(TrainRequest(tiny_corpus, tmp_path / "plain", recipe))
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")  # accelerate would run the whole model in autocast
    train(TrainRequest(tiny_corpus, tmp_path / "set", recipe))
    assert settings() == before
    plain, changed = (tmp_path / name / "adapter_model.safetensors" for name in ("plain", "set"))
    assert plain.read_bytes() == changed.read_bytes()
