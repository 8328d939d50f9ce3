"""The interface between the trainer and what a run learns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from torch import Tensor

from finetune.train.batches.collate import NumberedRows
from finetune.train.progress import Figures


class Objective(Protocol):
    """Makes batches of rows, and computes the loss of a batch.

    It is created with the untouched base model; `begin` then gets the model with its LoRA layers, before the first step.
    """

    task_type: str  # of PEFT: CAUSAL_LM, SEQ_CLS …
    rows: NumberedRows[Any]

    def begin(self, model: Any) -> None:
        """Choose the kind of batches, and set up the model for them."""

    def remember_start(self, model: Any) -> None:
        """Remember what is needed of the model with the first weights of its adapter; they may have an effect."""
        return

    def arrange(self, rows: list[int]) -> list[int]:
        """The rows of an optimizer step in the order in which they are divided among forward passes."""
        return rows

    def count_terms(self, rows: list[int]) -> int:
        """The number of terms that the loss of rows is the mean of: their number, or that of their supervised tokens."""
        return len(rows)

    def collate(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A batch of numbered rows: its `rows`, its `counts`, and whatever `loss` needs."""

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """The loss of a batch, summed over its `counts.terms`, in nats.

        `model` is the PeftModel itself, not a wrapper around it that accelerate may run in autocast.
        """

    def take_figures(self) -> Figures:
        """What `loss` has measured beside the loss since the last call."""
        return Figures()

    def state(self) -> dict[str, Tensor]:
        """What a checkpoint must contain of the objective."""
        return {}

    def merge(self, states: Sequence[dict[str, Tensor]]) -> None:
        """Take over what any of the processes of a run has computed, given the state of each."""
        return

    def restore(self, state: dict[str, Tensor]) -> None:
        """Take over the state of a checkpoint."""
        assert not state
