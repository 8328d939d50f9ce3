"""Rows → batches for the model: packed, or padded if the model cannot train on packed batches."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from datasets import Dataset
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from finetune.train.batches.packing import UNSUPERVISED, pack
from finetune.train.batches.rows import Rows, TokenRow, TokenRows
from finetune.train.progress import Counts

AnyRows = TypeVar("AnyRows", bound=Rows)


@dataclass(frozen=True)
class NumberedRows(Generic[AnyRows]):
    """Training rows followed by held-out rows, by number: TRL needs a `datasets.Dataset`, which contains the numbers."""

    training: AnyRows
    held_out: AnyRows

    def __len__(self) -> int:
        return len(self.training) + len(self.held_out)

    def __getitem__(self, number: int) -> Any:
        """A row, by number."""
        rows, place = self._find(number)
        return rows[place]

    def conversations(self, numbers: Iterable[int]) -> list[TokenRow]:
        """The conversations of rows, one after the other; of a pair of answers, there are two."""
        return [conversation for rows, place in map(self._find, numbers) for conversation in rows.conversations(place)]

    def _find(self, number: int) -> tuple[Any, int]:
        count = len(self.training)
        return (self.training, number) if number < count else (self.held_out, number - count)

    def datasets(self) -> tuple[Dataset, Dataset | None]:
        """The numbers of the training rows, and of the held-out rows if there are any."""
        count, held_out = len(self.training), len(self.held_out)
        later = Dataset.from_dict({"number": list(range(count, count + held_out))}) if held_out else None
        return Dataset.from_dict({"number": list(range(count))}), later


@dataclass(frozen=True)
class PackedBatches:
    """Collates rows into one sequence; see `packing`."""

    rows: NumberedRows[TokenRows]
    share: bool

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A batch for `SupervisedTrainer`; tensors are (1, tokens)."""
        numbers = [item["number"] for item in items]
        rows = self.rows.conversations(numbers)
        packed = pack(rows, share=self.share)
        return {
            "input_ids": packed.input_ids,
            "position_ids": packed.position_ids,
            "labels": packed.targets,
            "layout": packed.layout,
            "rows": numbers,
            "answers": [(row, rows[row].answer_tokens) for row in packed.order],
            "counts": _count(rows, packed.input_ids, numbers),
        }


@dataclass(frozen=True)
class PaddedBatches:
    """Collates rows into a rectangle; with `own_logits`, the loss is computed from the logits of the model itself."""

    rows: NumberedRows[TokenRows]
    pad_token: int
    own_logits: bool = False

    def __call__(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A batch for any causal language model; tensors are (rows, tokens)."""
        numbers = [item["number"] for item in items]
        rows = self.rows.conversations(numbers)
        tokens = [torch.from_numpy(row.tokens.astype("int64")) for row in rows]
        supervised = [torch.from_numpy(row.supervised.copy()) for row in rows]
        labels = [torch.where(mask, row, UNSUPERVISED) for row, mask in zip(tokens, supervised, strict=True)]
        input_ids = pad_sequence(tokens, batch_first=True, padding_value=self.pad_token)
        return {
            "input_ids": input_ids,
            "attention_mask": pad_sequence([torch.ones_like(row) for row in tokens], batch_first=True),
            "labels": pad_sequence(labels, batch_first=True, padding_value=UNSUPERVISED),
            "own_logits": self.own_logits,
            "rows": numbers,
            "answers": [(number, row.answer_tokens) for number, row in enumerate(rows)],
            "counts": _count(rows, input_ids, numbers),
        }


def _count(conversations: Sequence[TokenRow], input_ids: Tensor, numbers: Sequence[int]) -> Counts:
    """The tokens of a batch, and its pairs of answers."""
    return Counts(
        tokens=sum(len(row.tokens) for row in conversations),
        computed_tokens=input_ids.numel(),
        supervised_tokens=sum(row.answer_tokens for row in conversations),
        pairs=len(numbers) if len(conversations) > len(numbers) else 0,
    )
