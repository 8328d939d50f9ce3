"""To find the answer to a question in a context: its first and its last token."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.labelled import LabelledRows
from finetune.train.fast.encoder_path import EncoderPath
from finetune.train.objectives.objective import Objective


class Extraction(Objective):
    """The objective of encoders with a head for spans.

    The loss of a row is the mean of two cross-entropies over the tokens of its context: of the first and of the last token
    of the answer.
    """

    task_type = "QUESTION_ANS"

    def __init__(self, model: Any, rows: NumberedRows[LabelledRows], recipe: AdapterRecipe, pad_token: int) -> None:
        self.rows, self._recipe = rows, recipe
        self._path = EncoderPath(model, rows, pad_token)

    def begin(self, model: Any) -> None:
        """Take the fastest batches for which the model computes the same."""
        self._path.begin(model.get_base_model(), packing=self._recipe.packing)

    def arrange(self, rows: list[int]) -> list[int]:
        """Rows of similar length together, if they are padded."""
        return self._path.arrange(rows)

    def collate(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A packed or padded batch, with the places of answer and context per row."""
        return self._path.batches(items)

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Summed loss of the rows, in nats."""
        output = self._path.run(model.get_base_model(), batch)
        first, last, start, end = batch["targets"].unbind(1)
        places = torch.arange(output.start_logits.shape[1], device=start.device)
        outside = (places < start[:, None]) | (places > end[:, None])
        losses = [
            nn.functional.cross_entropy(logits.float().masked_fill(outside, -math.inf), target, reduction="sum")
            for logits, target in ((output.start_logits, first), (output.end_logits, last))
        ]
        return torch.stack(losses).mean()
