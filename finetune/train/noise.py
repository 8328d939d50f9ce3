"""NEFTune: uniform noise on the embeddings of training rows (Jain et al. 2023, arXiv 2310.05914)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def noisy_embeddings(model: Any, batch: Mapping[str, Any], alpha: float) -> Iterator[None]:
    """Add noise to the embeddings of a batch in passes with gradient: up to ±`alpha` / √(tokens of the row · width).

    Each row has the noise of its own length, also in a packed batch, whose rows must not share prefixes. The noise is drawn
    from torch's random state, which checkpoints contain.
    """
    if not alpha:
        yield
        return
    lengths = _row_lengths(batch)

    def add_noise(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        if not torch.is_grad_enabled():  # the reference of a preference
            return output
        bound = alpha / (lengths.to(output.device) * output.shape[-1]).sqrt()
        return output + ((2 * torch.rand_like(output, dtype=torch.float32) - 1) * bound[..., None]).to(output.dtype)

    hook = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        hook.remove()


def _row_lengths(batch: Mapping[str, Any]) -> Tensor:
    """For each token, the number of tokens of its row; padding counts as a token of its row that is not there."""
    inputs = batch.get("inputs", batch)
    if "layout" not in inputs:
        mask: Tensor = inputs["attention_mask"]
        return mask.sum(-1, keepdim=True).expand_as(mask)
    positions: Tensor = inputs["position_ids"][0]
    row = (positions == positions.min()).cumsum(0) - 1
    return row.bincount()[row][None]
