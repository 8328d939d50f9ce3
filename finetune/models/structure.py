"""How a loaded model computes, as far as its modules tell."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

ATTENTION = {"full_attention", "sliding_attention"}  # layer types in which a token sees others through attention alone
CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def find_state(model: Any) -> str | None:
    """What may pass from token to token other than by attention, as the end of a sentence about the model; None if nothing.

    Through it, packed rows would see each other; and several tokens at once cannot continue a cached prompt.
    """
    if model._is_stateful:
        return "carries a state from token to token"
    if any(isinstance(module, CONVOLUTIONS) for module in model.modules()):
        return "has convolutions, which reach from token to token"
    types = set(getattr(model.config.get_text_config(), "layer_types", None) or ())
    if other := sorted(map(str, types - ATTENTION)):
        return f"has layers of a type that slmtune does not know ({', '.join(other)})"
    return None


def has_transposed_weights(model: nn.Module) -> bool:
    """Whether linear layers store their weights as (in features, out features), as in GPT-2."""
    return any(isinstance(module, Conv1D) for module in model.modules())


def base_model(model: Any) -> Any:
    """The base model under an adapter, or the model itself."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def has_adapter(model: Any) -> bool:
    """Whether a model computes with an adapter, which may be there and disabled."""
    return hasattr(model, "get_model_status") and model.get_model_status().enabled is True


@contextlib.contextmanager
def attention_of(model: Any, name: str) -> Iterator[None]:
    """Let a base model use another attention function, whose name is known to transformers.

    Unlike `set_attn_implementation`, this does not look at all modules: their configurations are parts of the model's.
    """
    before = model.config._attn_implementation
    model.config._attn_implementation = name
    try:
        yield
    finally:
        model.config._attn_implementation = before
