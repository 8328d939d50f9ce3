"""Refuses an adapter that changes nothing: with and without it, the model computes the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from torch import Tensor

from finetune.errors import CheckFailedError

PROBE = range(5, 21)  # token ids: any will do, because the question is only whether anything changes


def require_effect(model: PeftModel, folder: Path, name: str = "default", *, is_encoder: bool = False) -> None:
    """Compute a few tokens with and without an adapter of a loaded model; `folder` is where the adapter came from.

    Of an encoder, the hidden states are compared: its base model has no trained head.

    Raises:
        CheckFailedError: the results are equal, or the adapter was never trained; says why, as far as its matrices tell.
    """
    active = model.active_adapter
    model.set_adapter(name, inference_mode=True)
    try:
        adapted = _compute(model, is_encoder)
        with model.disable_adapter():
            plain = _compute(model, is_encoder)
    finally:
        model.set_adapter(active, inference_mode=True)
    layers = [layer for layer in model.modules() if isinstance(layer, LoraLayer) and name in layer.scaling]
    is_untrained = all(_is_zero(layer, name) for layer in layers)
    config: Any = model.peft_config[name]
    # Even without training, DoRA rounds norms of rows of low precision, so what it computes differs in the last bits.
    if torch.equal(adapted, plain) or (is_untrained and config.use_dora):
        raise CheckFailedError(
            f"The adapter at {folder} changes nothing: with and without it, the model computes the same. "
            f"{explain_no_effect(is_untrained, all(layer.scaling[name] == 0 for layer in layers))}"
        )


def _compute(model: PeftModel, is_encoder: bool) -> Tensor:
    ids = torch.tensor([PROBE], device=model.device) % model.config.vocab_size
    with torch.inference_mode():
        if is_encoder:
            states: Tensor = model(input_ids=ids, output_hidden_states=True).hidden_states[-1]
            return states
        logits: Tensor = model(input_ids=ids, use_cache=False).logits
    return logits


def explain_no_effect(is_untrained: bool, is_scaled_to_zero: bool) -> str:
    """Why an adapter changes nothing, and what to do about it."""
    if is_scaled_to_zero:
        return "Its lora_alpha is 0, which multiplies every update by 0: correct adapter_config.json, or train again"
    if is_untrained:
        return (
            "The second matrix of each of its LoRA layers is zero, as before the first step: it was not trained, or its "
            "learning rate was 0. Train again, with a higher --learning-rate or more --max-steps"
        )
    return (
        "Its updates are smaller than the precision of the base model, or the layers that it changes do not affect the output. "
        "Train again, with a higher --learning-rate or other --target-modules"
    )


def _is_zero(layer: LoraLayer, name: str) -> bool:
    """Whether one of the two matrices, and so their product, is zero."""
    modules: Any = layer
    if name in modules.lora_embedding_B:
        return not (modules.lora_embedding_A[name].any() and modules.lora_embedding_B[name].any())
    return not (modules.lora_A[name].weight.any() and modules.lora_B[name].weight.any())
