"""Divides the rows of an optimizer step among forward passes; when memory is full, among more and smaller ones."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

import torch

from finetune.machine import is_out_of_memory, release_memory
from finetune.recipe import AdapterRecipe

log = logging.getLogger(__name__)

T = TypeVar("T")


class ForwardPasses:
    """Divides rows among forward passes: fewer rows per pass from the moment when memory is full.

    Args:
        recipe: with the rows per pass to begin with.
        on_change: called with the changed recipe.
    """

    def __init__(self, recipe: AdapterRecipe, on_change: Callable[[AdapterRecipe], None]) -> None:
        self.recipe, self.on_change = recipe, on_change

    def run(self, compute: Callable[[list[list[int]]], T], rows: list[int]) -> T:
        """Call `compute` with the rows of each pass; if memory is full, again with smaller passes and the same random numbers.

        Raises:
            Exception: whatever `compute` raises; if memory is full, only with one row per pass.
        """
        before, random = self.recipe, _read_random_state()
        while True:
            size = self.recipe.per_device_train_batch_size
            try:
                result = compute([rows[start : start + size] for start in range(0, len(rows), size)])
                break
            except Exception as error:
                smaller = next(self.recipe.smaller_passes(), None)
                if smaller is None or not is_out_of_memory(error):
                    raise
            self.recipe = smaller
            release_memory()  # not above: the error still refers to the tensors of the pass that failed
            torch.cuda.empty_cache()
            _restore_random_state(random)
        if self.recipe is not before:
            self._report(before)
        return result

    def _report(self, before: AdapterRecipe) -> None:
        log.warning(
            "Memory is full with %d rows per forward pass: going on with %d, in %d passes per optimizer step, for the same "
            "batch.",
            before.per_device_train_batch_size,
            self.recipe.per_device_train_batch_size,
            self.recipe.gradient_accumulation_steps,
        )
        self.on_change(self.recipe)


def _read_random_state() -> tuple[torch.Tensor, torch.Tensor | None]:
    return torch.get_rng_state(), torch.cuda.get_rng_state() if torch.cuda.is_available() else None


def _restore_random_state(state: tuple[torch.Tensor, torch.Tensor | None]) -> None:
    on_cpu, on_gpu = state
    torch.set_rng_state(on_cpu)
    if on_gpu is not None:
        torch.cuda.set_rng_state(on_gpu)
