"""Packed batches equal padded ones: same loss, same gradients, and no row sees another."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate.utils import send_to_device
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    Gemma2Config,
    Gemma2ForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PhiConfig,
    PhiForCausalLM,
    PreTrainedModel,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from finetune.models.load import load_base
from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.batches.packing import UNSUPERVISED, pack
from finetune.train.batches.rows import TokenRow, TokenRows
from finetune.train.fast import prefix_attention
from finetune.train.fast.lora_linear import FusedLinear, join_siblings
from finetune.train.fast.loss import summed_loss
from finetune.train.fast.swiglu import SwiGLU, replace_swiglu_blocks

from ..tiny_shape import WIDTHS

SHAPE: dict[str, Any] = WIDTHS | {"vocab_size": 90, "max_position_embeddings": 128, "initializer_range": 0.2}
ARCHITECTURES: dict[str, Callable[[], PreTrainedModel]] = {
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
    "phi": lambda: PhiForCausalLM(PhiConfig(**SHAPE | {"partial_rotary_factor": 0.5})),
    "sliding window": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=5)),
    "softcaps and window": lambda: Gemma2ForCausalLM(
        Gemma2Config(**SHAPE, head_dim=8, sliding_window=5, query_pre_attn_scalar=8, attn_logit_softcapping=2.0)
    ),
}


def rows_of(tokens: Sequence[Sequence[int]], answer: int = 2) -> TokenRows:
    """Rows whose last `answer` tokens carry loss."""
    masks = [[place >= len(row) - answer for place in range(len(row))] for row in tokens]
    return TokenRows(
        tuple(map(str, range(len(tokens)))),
        np.asarray([token for row in tokens for token in row], dtype=np.int32),
        np.asarray([mark for mask in masks for mark in mask], dtype=np.bool_),
        np.cumsum([len(row) for row in tokens]),
        0,
        max(map(len, tokens)),
    )


def prompts() -> TokenRows:
    """Eight rows of several lengths: five share one long prefix, two another, and one shares none."""
    generator = np.random.default_rng(3)
    first, second = generator.integers(3, 90, 12).tolist(), generator.integers(3, 90, 9).tolist()
    tails = [generator.integers(3, 90, size).tolist() for size in (4, 5, 6, 11, 30, 3, 7, 14)]
    starts = [first, first, first, first, first, second, second, []]
    return rows_of([start + tail for start, tail in zip(starts, tails, strict=True)])


def gradients(model: Any) -> dict[str, torch.Tensor]:
    """Gradients by the names that parameters have in both models."""
    return {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}


def adapted(model: Any, *, fused: bool) -> Any:
    """LoRA on all linear layers, with matrices that have an effect."""
    config = LoraConfig(task_type="CAUSAL_LM", r=4, lora_alpha=8, target_modules="all-linear")
    if fused:
        config._register_custom_module({torch.nn.Linear: FusedLinear})
    wrapped = get_peft_model(model, config).train()
    join_siblings(wrapped)
    torch.manual_seed(7)
    for name, parameter in wrapped.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    return wrapped


def batch_of(rows: TokenRows, collate: Any) -> dict[str, Any]:
    """All rows in one batch."""
    result: dict[str, Any] = collate([{"number": number} for number in range(len(rows))])
    return result


def assert_alike(plain: Any, fast: Any, rows: TokenRows, *, share: bool = True) -> None:
    """Expect the same loss and gradients for padded rows in `plain` and packed rows in `fast`."""
    numbered = NumberedRows(rows, rows_of([[1, 2, 3]]))
    expected = summed_loss(plain.get_base_model(), batch_of(rows, PaddedBatches(numbered, 0)))
    expected.backward()
    prefix_attention.register()
    fast.get_base_model().set_attn_implementation(prefix_attention.PACKED)
    packed = batch_of(rows, PackedBatches(numbered, share))
    actual = summed_loss(fast.get_base_model(), packed)
    actual.backward()
    assert expected.item() > 1
    torch.testing.assert_close(actual, expected, rtol=1e-5, atol=1e-4)
    expected_gradients, actual_gradients = gradients(plain), gradients(fast)
    assert expected_gradients.keys() == actual_gradients.keys()
    assert len(expected_gradients) > 10
    for name, gradient in expected_gradients.items():
        torch.testing.assert_close(
            actual_gradients[name], gradient, rtol=1e-3, atol=1e-4 * max(1.0, float(gradient.abs().max()))
        )


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_packed_rows_have_the_loss_and_gradients_of_padded_ones(name: str, share: bool) -> None:
    torch.manual_seed(0)
    model = ARCHITECTURES[name]().eval()
    model.set_attn_implementation("eager" if "softcaps" in name else "sdpa")  # only eager attention supports softcaps
    twin = ARCHITECTURES[name]().eval()
    twin.load_state_dict(model.state_dict())
    assert_alike(adapted(model, fused=False), adapted(twin, fused=True), prompts(), share=share)


@pytest.mark.parametrize("unpack", [True, False])
def test_fused_layers_over_four_bits_have_the_gradients_of_peft(tiny_model: Path, unpack: bool) -> None:
    plain = adapted(load_base(tiny_model, AdapterRecipe()), fused=False)
    base = load_base(tiny_model, AdapterRecipe(), unpack=unpack)
    replace_swiglu_blocks(base)
    assert any(isinstance(module, SwiGLU) for module in base.modules())
    assert_alike(plain, adapted(base, fused=True), prompts())


def long_rows() -> TokenRows:
    """Three rows with a common beginning of twelve tokens; attention over the first two needs no mask."""
    generator = np.random.default_rng(4)
    start = generator.integers(3, 90, 12).tolist()
    return rows_of([start + generator.integers(3, 90, size).tolist() for size in (540, 530, 20)])


def test_long_rows_that_share_their_beginning_have_the_gradients_of_padded_ones() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE | {"max_position_embeddings": 1024})).double().eval()
    twin = copy.deepcopy(model)
    rows = long_rows()
    packed = pack([rows[number] for number in range(len(rows))])
    assert packed.input_ids.numel() == len(rows.flat_tokens) - 2 * 12
    assert_alike(adapted(model, fused=False), adapted(twin, fused=True), rows)


def test_all_layers_share_one_mask() -> None:
    model = Qwen2ForCausalLM(Qwen2Config(**SHAPE)).eval()
    prefix_attention.register()
    model.set_attn_implementation(prefix_attention.PACKED)
    batch = batch_of(prompts(), PackedBatches(NumberedRows(prompts(), rows_of([[1, 2, 3]])), share=True))
    kept: list[torch.Tensor] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        summed_loss(model, batch)
    masks = [tensor for tensor in kept if tensor.dim() == 2 and bool(torch.isinf(tensor).any())]
    assert len(masks) > len({mask.data_ptr() for mask in masks}) == len(batch["layout"].masks) > 0


def test_shared_prefixes_are_computed_once() -> None:
    rows = prompts()
    packed = pack([rows[number] for number in range(len(rows))])
    assert packed.input_ids.numel() == len(rows.flat_tokens) - 4 * 12 - 9


def test_changing_a_row_does_not_change_the_loss_of_others(tiny_model: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(tiny_model)
    prefix_attention.register()
    model.set_attn_implementation(prefix_attention.PACKED)
    rows = prompts()
    before = [rows[number] for number in range(len(rows))]
    changed = TokenRow(before[2].tokens.copy(), before[2].supervised)
    changed.tokens[12:16] = (changed.tokens[12:16] + 5) % 90
    after = [*before[:2], changed, *before[3:]]

    def losses(batch: Sequence[TokenRow], left_out: int) -> float:
        """The loss of all rows but one, which is in the batch without loss."""
        silent = TokenRow(batch[left_out].tokens, np.zeros_like(batch[left_out].supervised))
        silent.supervised[-1] = True  # a row needs one, which is subtracted below
        rows_seen = [*batch[:left_out], silent, *batch[left_out + 1 :]]
        packed = pack(rows_seen)
        whole = {"input_ids": packed.input_ids, "position_ids": packed.position_ids, "layout": packed.layout}
        alone = pack([silent])
        own = {"input_ids": alone.input_ids, "position_ids": alone.position_ids, "layout": alone.layout}
        with torch.no_grad():
            together = summed_loss(model, whole | {"labels": packed.targets})
            return float(together - summed_loss(model, own | {"labels": alone.targets}))

    assert losses(before, 2) == pytest.approx(losses(after, 2), rel=1e-5)


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(0, 14), st.integers(2, 12), st.integers(1, 2)),
        min_size=1,
        max_size=9,
    )
)
def test_every_supervised_token_is_predicted_once_at_its_own_position(shapes: list[tuple[int, int, int, int]]) -> None:
    stems = [list(range(10, 30)), list(range(40, 60)), list(range(10, 20)) + list(range(70, 80))]
    rows = [
        rows_of([[*stems[stem][:shared], *range(100 + number, 100 + number + own)]], answer)[0]
        for number, (stem, shared, own, answer) in enumerate(shapes)
    ]
    packed = pack(rows)
    targets, positions = packed.targets[0], packed.position_ids[0]
    expected = sorted(
        (place - 1, int(row.tokens[place])) for row in rows for place in np.flatnonzero(row.supervised) if place
    )
    marked = targets != UNSUPERVISED
    assert sorted(zip(positions[marked].tolist(), targets[marked].tolist(), strict=True)) == expected
    assert packed.input_ids.numel() <= sum(len(row.tokens) for row in rows)


def test_whole_batch_moves_to_a_device() -> None:
    """Also the positions in the layout, which a GPU cannot read from main memory."""
    batches = PackedBatches(
        NumberedRows(rows_of([[1, 2, 3, 4, 5], [1, 2, 3, 6], [7, 8, 9]]), rows_of([[1, 2, 3]])), share=True
    )
    moved = send_to_device(batches([{"number": number} for number in range(3)]), "meta")
    suffixes = [each for group in moved["layout"].groups for each in group]
    tensors = [moved["input_ids"], moved["position_ids"], moved["labels"]]
    tensors += [tensor for each in suffixes for tensor in (each.gather, each.real)]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
