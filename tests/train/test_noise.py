"""Noise on embeddings is that of NEFTune, for each row by its own length, and only in training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from finetune.models.load import load_base
from finetune.recipe import AdapterRecipe
from finetune.train.batches.collate import NumberedRows, PackedBatches, PaddedBatches
from finetune.train.noise import noisy_embeddings

from .test_packing import prompts, rows_of

ALPHA = 5.0


def noise(model: Any, batch: dict[str, Any], *, gradient: bool = True) -> Tensor:
    """The noise on the embeddings of a batch."""
    embed = model.get_input_embeddings()
    with noisy_embeddings(model, batch, ALPHA), torch.set_grad_enabled(gradient):
        noisy: Tensor = embed(batch["input_ids"])
    plain: Tensor = embed.weight[batch["input_ids"]]
    return (noisy - plain).detach()


@pytest.mark.parametrize("packed", [True, False])
def test_noise_of_each_row_follows_its_length(packed: bool, tiny_model: Path) -> None:
    model = load_base(tiny_model, AdapterRecipe(quantization="none"))
    numbered = NumberedRows(prompts(), rows_of([[1, 2, 3]]))
    count = len(numbered.training)
    batches = PackedBatches(numbered, share=False) if packed else PaddedBatches(numbered, 0)
    batch = batches([{"number": number} for number in range(count)])
    torch.manual_seed(0)
    drawn = noise(model, batch)
    rows = (
        [drawn[0, place] for place in batch["layout"].rows()]
        if packed
        else [row[mask.bool()] for row, mask in zip(drawn, batch["attention_mask"], strict=True)]
    )
    assert len({len(row) for row in rows}) > 1
    for row in rows:
        bound = ALPHA / math.sqrt(row.numel())
        assert 0.9 * bound < float(row.abs().max()) <= bound * (1 + 1e-4)
    assert not torch.equal(rows[0][:3], rows[1][:3])
    assert not noise(model, batch, gradient=False).any()


def test_rows_with_noise_share_no_prefix() -> None:
    assert AdapterRecipe().shares_prefixes
    assert not AdapterRecipe(neftune_noise_alpha=5).shares_prefixes
