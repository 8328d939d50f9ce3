"""Finds out, with a trial on a few rows, whether a model can train on packed batches."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from finetune.train.batches.collate import PackedBatches, PaddedBatches
from finetune.train.fast import prefix_attention
from finetune.train.fast.loss import summed_loss

log = logging.getLogger(__name__)

TRIED_ROWS = 3
# Relative difference in loss. float32 sums in another order differ by 1e-7 to 1e-6, bfloat16 sums by up to 1e-2; if rows
# see each other, the difference is larger.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


def choose_batches(model: Any, padded: PaddedBatches, *, packing: bool, share: bool) -> PackedBatches | PaddedBatches:
    """Choose the kind of batches for this model, and set the model to the attention that they need.

    Packed batches are used only after a trial: a few rows must have the same loss packed as padded. Architectures that
    carry state from token to token (convolutions, state spaces) would let packed rows see each other.
    """
    if not packing or not getattr(model, "_supports_attention_backend", False):
        return padded
    if getattr(model.config.get_text_config(), "attention_dropout", 0.0):
        return padded
    rows, packed = padded.rows, PackedBatches(padded.rows, share)
    prefix_attention.register()
    shortest = sorted(range(min(len(rows.training), 64)), key=lambda number: len(rows[number].tokens))[:TRIED_ROWS]
    items = [{"number": number} for number in shortest]
    was_training, attention = model.training, model.config._attn_implementation
    model.eval()
    with torch.no_grad():
        expected = _loss(model, padded(items))
        model.set_attn_implementation(prefix_attention.PACKED)
        actual = _loss(model, packed(items))
    model.train(was_training)
    if bool((actual - expected).abs() <= TOLERANCE.get(model.dtype, 3e-2) * expected.abs()):
        return packed
    model.set_attn_implementation(attention)
    log.warning("This model's loss differs for packed and single rows, so batches are padded: slower, but exact.")
    return padded


def _loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    device = next(model.parameters()).device
    moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
    return summed_loss(model, moved)
