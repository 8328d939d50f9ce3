"""To classify: one label per row, or any number of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from finetune.models.heads import Head
from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows
from finetune.train.batches.labelled import LabelledRows
from finetune.train.fast.encoder_path import EncoderPath
from finetune.train.objectives.objective import Objective


class Classification(Objective):
    """The objective of encoders with a head for classes.

    The loss of a row is the cross-entropy of its class or, with several labels per row, the mean of the binary
    cross-entropies of all classes. Losses are summed and divided by the number of rows of the step, whatever their weights:
    balanced weights are 1 on average.
    """

    task_type = "SEQ_CLS"

    def __init__(
        self, model: Any, rows: NumberedRows[LabelledRows], recipe: AdapterRecipe, head: Head, pad_token: int
    ) -> None:
        self.rows, self._recipe, self._several = rows, recipe, head.kind == "multi-label"
        self._path = EncoderPath(model, rows, pad_token)
        self._weights: Tensor | None = None
        if recipe.class_weights == "balanced":
            self._weights = torch.from_numpy(balanced_weights(rows.training.targets, len(head.labels)))

    def begin(self, model: Any) -> None:
        """Take the fastest batches for which the model computes the same."""
        self._path.begin(model.get_base_model(), packing=self._recipe.packing)

    def arrange(self, rows: list[int]) -> list[int]:
        """Rows of similar length together, if they are padded."""
        return self._path.arrange(rows)

    def collate(self, items: Sequence[Mapping[str, int]]) -> dict[str, Any]:
        """A packed or padded batch, with a class or zeros and ones per row."""
        return self._path.batches(items)

    def loss(self, model: Any, batch: dict[str, Any]) -> Tensor:
        """Summed loss of the rows, in nats."""
        logits = self._path.run(model.get_base_model(), batch).logits.float()
        weights = None if self._weights is None else self._weights.to(logits.device)
        if not self._several:
            return nn.functional.cross_entropy(logits, batch["targets"][:, 0], weights, reduction="sum")
        losses = nn.functional.binary_cross_entropy_with_logits(
            logits, batch["targets"].float(), reduction="none", pos_weight=weights
        )
        return losses.mean(-1).sum()


def balanced_weights(targets: NDArray[np.int64], classes: int) -> NDArray[np.float32]:
    """Weights with which each class counts as much as any other; (classes,).

    Of one label per row: rows / (classes · rows of the class), as in scikit-learn; a class without rows never counts. Of
    several: the rows without the label per row with it, the weight of the latter.
    """
    if targets.shape[1] == 1:
        counts = np.bincount(targets[:, 0], minlength=classes)
        weights = len(targets) / (classes * np.maximum(counts, 1))
    else:
        counts = targets.sum(0)
        weights = (len(targets) - counts) / np.maximum(counts, 1)
    return weights.astype(np.float32)
