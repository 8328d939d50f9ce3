"""The memory of a server: what it takes, and what is left for requests within --max-memory."""

from __future__ import annotations

import psutil
import torch

from finetune.errors import InputError
from finetune.machine import GPU_CONTEXT, format_bytes, free_memory
from finetune.models.find import BaseModel
from finetune.models.load import compute_dtype
from finetune.recipe import AdapterRecipe

LEAST_CONTEXT = 256  # tokens of a conversation, below which a server is of no use
LEAST_BYTES = 0.5  # of a quantised weight
ADAPTER_SHARE = 0.15  # of the memory that is left, for adapters; stacked for joint products, they take up to twice that


def used_memory() -> int:
    """Bytes that this process takes: of the GPU if there is one, else of main memory."""
    if torch.cuda.is_available():
        return torch.cuda.memory_reserved() + GPU_CONTEXT
    return int(psutil.Process().memory_info().rss)


def memory_left(limit: int | None) -> int:
    """Bytes that requests may take: those that are free, or as many of them as a limit on the process leaves."""
    free = free_memory()
    return free if limit is None else max(0, min(free, limit - used_memory()))


def adapter_room(limit: int | None, left: int) -> int | None:
    """Bytes that the weights of adapters may take of those that are left within a limit; None if there is no limit."""
    return None if limit is None else int(ADAPTER_SHARE * left)


def require_base_fits(base: BaseModel, recipe: AdapterRecipe, limit: int | None) -> None:
    """Refuse a base model whose weights, in the precision of a recipe, do not fit; before they are loaded.

    Raises:
        InputError: says how much they take.
    """
    bytes_each = LEAST_BYTES if recipe.is_quantized else compute_dtype(recipe).itemsize
    require_weights_fit(bytes_each * base.parameters, limit)


def require_weights_fit(weights: float, limit: int | None) -> None:
    """Refuse a model before it is loaded; `weights` is the number of bytes that its weights take at least.

    Raises:
        InputError: says how much it takes.
    """
    used = used_memory()
    if limit is not None and used + weights > limit:
        raise InputError(
            f"The server does not fit in {format_bytes(limit)}: the weights of the model take at least "
            f"{format_bytes(weights)}, and the libraries {format_bytes(used)}. Raise --max-memory, or serve a smaller model"
        )


def require_room(context: int | None, limit: int | None) -> None:
    """Refuse a server that takes more than the limit, or that has no room for a conversation; `context` is its length.

    Raises:
        InputError: says how much it takes.
    """
    if limit is None:
        return
    used = used_memory()
    if used > limit:
        raise InputError(
            f"The server does not fit in {format_bytes(limit)}: before the first request it takes {format_bytes(used)}. Raise "
            "--max-memory, or serve a smaller model"
        )
    if context is not None and context < LEAST_CONTEXT:
        raise InputError(
            f"The server does not fit in {format_bytes(limit)}: it takes {format_bytes(used)}, and what is left is enough for "
            f"conversations of {context} tokens, fewer than {LEAST_CONTEXT}. Raise --max-memory, or serve a smaller model"
        )
