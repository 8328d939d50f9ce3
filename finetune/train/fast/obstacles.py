"""What the modules of a model rule out before anything is tried: packed batches, shared prefixes, fused layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from finetune.models.structure import find_state

ATTENTION_DROPOUT = ("attention_dropout", "attn_dropout", "attn_pdrop")  # names of attributes, by their beginning


def find_obstacle(model: Any) -> str | None:
    """Why a model trains with padded batches and its own layers only, as part of a sentence; None if nothing is known."""
    if state := find_state(model):
        return f"the model {state}"
    return None if model._supports_attention_backend else "the attention of the model cannot be replaced"


def has_dropout(model: nn.Module) -> bool:
    """Whether training drops values anywhere in the model, so that rows that share a computation would share a mask."""
    return any(_dropouts(model))


def has_attention_dropout(model: nn.Module) -> bool:
    """Whether training drops attention weights, which packed attention does not do."""
    return any(
        name.startswith(ATTENTION_DROPOUT) or (name.startswith("dropout") and "Attention" in owner)
        for owner, name in _dropouts(model)
    )


def _dropouts(model: nn.Module) -> Iterator[tuple[str, str]]:
    """The class of each module that drops values in training, and the name of the attribute that says so."""
    for module in model.modules():
        owner = type(module).__name__
        for name, value in vars(module).items():
            if "drop" in name and isinstance(value, float) and value > 0:
                yield owner, name
        for name, child in module.named_children():
            if isinstance(child, nn.Dropout) and child.p > 0:
                yield owner, name
