"""Rows → the batches that the trainer feeds to the model: packed, or padded where a model cannot take packed ones."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from finetune.train.batches.packing import UNSUPERVISED, pack
from finetune.train.batches.rows import Row, Rows
from finetune.train.fast import prefix_attention
from finetune.train.fast.loss import summed_loss

log = logging.getLogger(__name__)

PLAIN = "sdpa"  # attention over padded batches
TRIED_ROWS = 3
# Of the loss. float32 sums in another order differ by 1e-7 to 1e-6, bfloat16 ones by up to 1e-2; rows that see each other
# differ by more.
TOLERANCE = {torch.float32: 1e-4, torch.bfloat16: 3e-2}


@dataclass(frozen=True)
class Numbered:
    """Training rows and, numbered after them, held-out rows: TRL wants a `datasets.Dataset`, which holds the numbers."""

    rows: Rows
    held_out: Rows

    def __getitem__(self, number: int) -> Row:
        return self.rows[number] if number < len(self.rows) else self.held_out[number - len(self.rows)]

    def datasets(self) -> tuple[Dataset, Dataset | None]:
        """The numbers of the training rows, and of the held-out ones if there are any."""
        count, held_out = len(self.rows), len(self.held_out)
        later = Dataset.from_dict({"number": list(range(count, count + held_out))}) if held_out else None
        return Dataset.from_dict({"number": list(range(count))}), later


@dataclass(frozen=True)
class PackedBatches:
    """Collates rows into one sequence; see `packing`."""

    rows: Numbered
    share: bool

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A batch for `SupervisedTrainer`; tensors are (1, tokens)."""
        numbers = [item["number"] for item in items]
        packed = pack([self.rows[number] for number in numbers], share=self.share)
        return {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "labels": packed.targets,
            "shift_labels": packed.targets,  # by this name the Trainer counts them as they are
            "layout": packed.layout,
            "row_tokens": packed.row_tokens,
            "rows": numbers,
        }


@dataclass(frozen=True)
class PaddedBatches:
    """Collates rows into a rectangle."""

    rows: Numbered
    pad_token: int

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A batch for any causal language model; tensors are (rows, tokens)."""
        numbers = [item["number"] for item in items]
        tokens = [torch.from_numpy(self.rows[number].tokens.astype("int64")) for number in numbers]
        supervised = [torch.from_numpy(self.rows[number].supervised.copy()) for number in numbers]
        labels = [torch.where(mask, row, UNSUPERVISED) for row, mask in zip(tokens, supervised, strict=True)]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.pad_token),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=UNSUPERVISED),
            "row_tokens": sum(len(row) for row in tokens),
            "rows": numbers,
        }


def choose(model: Any, padded: PaddedBatches, packing: bool, *, share: bool) -> PackedBatches | PaddedBatches:
    """How batches are made for this model, which is set to the attention that they need.

    Packed ones are believed only after a trial: a few rows must have the loss that they have padded. Architectures that
    carry state from token to token (convolutions, state spaces) would let packed rows see each other.
    """
    if not packing or not getattr(model, "_supports_attention_backend", False):
        return padded
    if getattr(model.config.get_text_config(), "attention_dropout", 0.0):
        return padded
    rows, packed = padded.rows, PackedBatches(padded.rows, share)
    prefix_attention.register()
    shortest = sorted(range(min(len(rows.rows), 64)), key=lambda number: len(rows[number].tokens))[:TRIED_ROWS]
    items = [{"number": number} for number in shortest]
    was_training = model.training
    model.eval()
    with torch.no_grad():
        expected = _loss(model, padded(items))
        model.set_attn_implementation(prefix_attention.PACKED)
        found = _loss(model, packed(items))
    model.train(was_training)
    if bool((found - expected).abs() <= TOLERANCE.get(model.dtype, 3e-2) * expected.abs()):
        return packed
    model.set_attn_implementation(PLAIN)
    log.warning("This model gives packed rows another loss than single ones, so batches are padded: slower, and exact.")
    return padded


def _loss(model: nn.Module, batch: dict[str, Any]) -> Tensor:
    device = next(model.parameters()).device
    moved = {name: value.to(device) if hasattr(value, "to") else value for name, value in batch.items()}
    return summed_loss(model, moved)
