"""The precision of what is trained: float32, whatever the precision of the model around it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from peft.utils import ModulesToSaveWrapper
from torch import Tensor, nn


def restore_precision(trainable: Mapping[str, nn.Parameter]) -> None:
    """Return LoRA matrices to float32.

    SFTTrainer casts them to bfloat16 on a quantised base (trl 1.16, sft_trainer.py, citing arXiv 2305.14314); AdamW
    updates below its 8 bits of precision are then lost. FusedLinear rounds them for each product. Remove when
    https://github.com/huggingface/peft/issues/2889 makes this optional.
    """
    for parameter in trainable.values():
        parameter.data = parameter.data.to(torch.float32)


def match_precision(model: Any) -> None:
    """Let modules that are trained whole, in float32, take and give what the frozen module in their place would."""
    for wrapper in model.modules():
        if not isinstance(wrapper, ModulesToSaveWrapper):
            continue
        dtype = next(wrapper.original_module.parameters()).dtype
        for trained in wrapper.modules_to_save.values():
            if dtype != torch.float32:
                trained.register_forward_pre_hook(lambda module, inputs: _cast(inputs, torch.float32))
                trained.register_forward_hook(lambda module, inputs, output, dtype=dtype: _cast(output, dtype))


def _cast(values: Any, dtype: torch.dtype) -> Any:
    if isinstance(values, tuple):
        return tuple(_cast(value, dtype) for value in values)
    return values.to(dtype) if isinstance(values, Tensor) and values.is_floating_point() else values
