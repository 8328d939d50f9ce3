"""What the modules of a model rule out before anything is tried: packed batches, shared prefixes, fused layers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

PACKABLE = {"full_attention", "sliding_attention"}  # layer types in which a token sees others through attention alone
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
ATTENTION_DROPOUT = ("attention_dropout", "attn_dropout", "attn_pdrop")  # names of attributes, by their beginning


def find_obstacle(model: Any) -> str | None:
    """Why a model trains with padded batches and its own layers only, as part of a sentence; None if nothing is known."""
    config = model.config.get_text_config()
    if model._is_stateful:
        return "the model carries a state from token to token, and so from one packed row to the next"
    if any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return "the model has convolutions, which would reach from one packed row into the next"
    if other := set(getattr(config, "layer_types", None) or ()) - PACKABLE:
        return f"the model has layers of a type that slmtune does not know ({', '.join(sorted(map(str, other)))})"
    if not model._supports_attention_backend:
        return "the attention of the model cannot be replaced"
    return None


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
