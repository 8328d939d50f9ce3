"""Rows of an encoder → batches: packed into one sequence, or padded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.labelled import LabelledRow, LabelledRows
from finetune.train.batches.packing import Masks, Suffixes, divide_by_length, index_rows
from finetune.train.progress import Counts


@dataclass(frozen=True)
class EncoderLayout:
    """Where the rows of a packed sequence are, in order of their lengths.

    `parts` are rows of similar length, which attention pads to the longest of them; `whole` are all rows.
    """

    parts: tuple[Suffixes, ...]
    whole: Suffixes
    masks: Masks = field(default_factory=dict, compare=False)  # of attention, made by the first layer for all others

    def to(self, device: Any) -> EncoderLayout:
        """This layout on `device`."""
        return EncoderLayout(tuple(part.to(device) for part in self.parts), self.whole.to(device))


@dataclass(frozen=True)
class EncoderBatches:
    """Collates rows, the shortest first.

    Args:
        packs: whether into one sequence without padding, else into a rectangle.
        has_types: whether the model reads the segments of tokens.
        first_position: what the model counts positions from: 0, or a larger number in RoBERTa and its relatives.
    """

    rows: NumberedRows[LabelledRows]
    pad_token: int
    packs: bool = False
    has_types: bool = True
    first_position: int = 0

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """The inputs of a model, and targets of (rows, width of a target)."""
        numbered = sorted(
            ((item["number"], self.rows[item["number"]]) for item in items), key=lambda pair: len(pair[1].tokens)
        )
        rows = [row for _, row in numbered]
        inputs = self._pack(rows) if self.packs else self._pad(rows)
        if not self.has_types:
            del inputs["token_type_ids"]
        return {
            "inputs": inputs,
            "targets": torch.from_numpy(np.stack([row.target for row in rows])),
            "rows": [number for number, _ in numbered],
            "counts": Counts(
                tokens=sum(len(row.tokens) for row in rows),
                computed_tokens=inputs["input_ids"].numel(),
                supervised_tokens=len(rows),
            ),
        }

    def _pack(self, rows: Sequence[LabelledRow]) -> dict[str, Any]:
        lengths = [len(row.tokens) for row in rows]
        positions = np.concatenate([np.arange(length) for length in lengths]) + self.first_position
        return {
            "input_ids": _join([row.tokens for row in rows]),
            "token_type_ids": _join([row.token_types for row in rows]),
            "position_ids": torch.from_numpy(positions)[None],
            "attention_mask": torch.arange(lengths[-1])[None] < torch.tensor(lengths)[:, None],  # of the unpacked rows
            "layout": EncoderLayout(divide_by_length((0, 0), lengths), index_rows((0, 0), 0, lengths)),
        }

    def _pad(self, rows: Sequence[LabelledRow]) -> dict[str, Any]:
        tokens = [torch.from_numpy(row.tokens.astype(np.int64)) for row in rows]
        types = [torch.from_numpy(row.token_types.astype(np.int64)) for row in rows]
        return {
            "input_ids": pad_sequence(tokens, batch_first=True, padding_value=self.pad_token),
            "token_type_ids": pad_sequence(types, batch_first=True),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
        }


def _join(parts: Sequence[Any]) -> Tensor:
    """(1, tokens)."""
    return torch.from_numpy(np.concatenate(parts).astype(np.int64))[None]
