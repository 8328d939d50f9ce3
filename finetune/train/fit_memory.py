"""Checks, before weights are loaded, that training fits in memory, and divides its batches accordingly."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np

from finetune.errors import UnplannedModelError
from finetune.machine import has_bfloat16
from finetune.models.find import BaseModel
from finetune.plan.device import Device, this_device
from finetune.plan.memory import RowSizes, is_padded
from finetune.plan.run import Plan, divide_to_fit, plan
from finetune.plan.shapes import read_shape
from finetune.recipe import AdapterRecipe
from finetune.train.batches.rows import Rows, TokenRows

log = logging.getLogger(__name__)

SIZE = "per_device_train_batch_size"


def fit_memory(
    recipe: AdapterRecipe,
    base: BaseModel,
    rows: Rows,
    tokenizer: int,
    free: int | None = None,
    processes: int = 1,
) -> tuple[AdapterRecipe, Plan | None]:
    """The recipe, adjusted to fit in memory, and its plan; the plan is None if the model's family is unknown.

    A batch size set by the user is kept. Otherwise the effective batch is divided into forward passes that fit: into more
    than the recipe asks for, or into fewer. It stays the same, with the order of the rows, and so does the result up to
    rounding.

    Args:
        tokenizer: the number of entries of its tokenizer.
        free: bytes that training may use; None: the free memory of the device.
        processes: among which the memory of the CPU is divided; a GPU is each one's own.
    """
    device = _device(free)
    if device.kind == "cpu":
        device = replace(device, free=device.free // processes)
    try:
        shape = replace(read_shape(base.folder), tokenizer=tokenizer)
    except UnplannedModelError as error:
        log.info("%s.", error)
        return recipe, None
    sizes = row_sizes(rows, is_shared=recipe.shares_prefixes and shape.shares and not is_padded(shape, recipe))
    fitted = (
        recipe if SIZE in recipe.model_fields_set else divide_to_fit(recipe, device=device, rows=sizes, shape=shape)
    )
    planned = replace(plan(fitted, device=device, rows=sizes, shape=shape), model=base.name)
    if fitted is not recipe:
        log.info(
            "Memory allows %d rows per forward pass instead of %d (passes per optimizer step: %d, for the same batch).",
            fitted.per_device_train_batch_size,
            recipe.per_device_train_batch_size,
            fitted.gradient_accumulation_steps,
        )
    return fitted, planned


def _device(memory: int | None) -> Device:
    """The device that torch will use: one of another make than NVIDIA is a GPU too, which only torch knows."""
    from torch import cuda  # slow to import, and run.py reports its first errors sooner

    device = this_device(memory)
    if not cuda.is_available():
        return device
    if device.kind == "cpu":
        device = replace(device, kind="gpu", free=device.free if device.is_given else cuda.mem_get_info()[0])
    return replace(device, has_bfloat16=has_bfloat16())


def row_sizes(rows: Rows, *, is_shared: bool) -> RowSizes:
    """Lengths and supervised tokens of rows, and the lengths of their common prefixes if batches share them."""
    if isinstance(rows, TokenRows) and rows.are_pairs:
        return RowSizes(
            rows.lengths, rows.supervised, common=rows.prompts if is_shared else np.zeros_like(rows.prompts)
        )
    return RowSizes(rows.lengths, rows.supervised, rows.common_prefix if is_shared else 0)
