"""To continue a prompt: the likelihood of each supervised token, as a causal language model predicts it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows, PaddedBatches
from finetune.train.batches.rows import TokenRows
from finetune.train.fast.fast_path import Batches, FastPath
from finetune.train.fast.loss import summed_loss
from finetune.train.objectives.objective import Objective


class Generation(Objective):
    """The objective of causal language models.

    Args:
        model: the base model, still untouched.
        pad_token: the token that fills up padded batches.
    """

    task_type = "CAUSAL_LM"

    def __init__(self, model: Any, rows: NumberedRows[TokenRows], recipe: AdapterRecipe, pad_token: int) -> None:
        self.rows, self._recipe = rows, recipe
        self._batches: Batches = PaddedBatches(rows, pad_token)
        self._fast_path = FastPath(model, self._batches, replace_blocks=not recipe.gradient_checkpointing)  # saves more

    def begin(self, model: Any) -> None:
        """Take the fastest batches for which the model computes the same."""
        packing, share = self._recipe.packing, self._recipe.shares_prefixes
        self._batches = self._fast_path.choose_batches(model.get_base_model(), packing=packing, share=share)

    def count_terms(self, rows: list[int]) -> int:
        """The number of supervised tokens."""
        return sum(row.answer_tokens for row in self.rows.conversations(rows))

    def collate(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A packed or padded batch."""
        return self._batches(items)

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Summed negative log-likelihood of the supervised tokens, in nats."""
        return summed_loss(model.get_base_model(), batch)
