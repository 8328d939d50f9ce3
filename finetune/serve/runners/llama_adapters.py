"""The adapters of a model in llama.cpp: what they add to the products of its weights, each row with its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from torch import Tensor

from finetune.serve.runners.parts import Plan, UpdateStack, make_plan


class LlamaAdapters:
    """Adapters by name, and which rows of the next pass have which."""

    def __init__(self) -> None:
        self._stacks: dict[str, UpdateStack] = {}  # by the name of the weight in llama.cpp
        self._places: dict[str, int] = {}
        self._plans: dict[int, Plan] = {}  # by the number of rows

    def __contains__(self, weight: str) -> bool:
        return weight in self._stacks

    @property
    def active(self) -> bool:
        """Whether a row of the next pass has an adapter."""
        return any(plan.parts for plan in self._plans.values())

    def put(self, name: str, updates: Mapping[str, tuple[Tensor, Tensor]]) -> None:
        """Add an adapter under a name that is free: its matrices by the name of the weight."""
        place = next(number for number in itertools.count() if number not in self._places.values())
        for weight, matrices in updates.items():
            self._stacks.setdefault(weight, UpdateStack(*matrices)).put(place, *matrices)
        self._places[name] = place

    def remove(self, name: str) -> None:
        """Remove an adapter."""
        place = self._places.pop(name)
        for stack in self._stacks.values():
            stack.clear(place)

    def assign(self, adapters: Sequence[tuple[str | None, int]], outputs: Sequence[str | None]) -> None:
        """Say which adapters the rows of the next pass have: each a number of rows; None is the base model.

        Behind the last attention, llama.cpp computes only the rows with `outputs`.
        """
        self._plans = {len(outputs): make_plan([(name, 1) for name in outputs], self._places)}
        self._plans[sum(count for _, count in adapters)] = make_plan(adapters, self._places)

    def add(self, weight: str, x: Tensor, result: Tensor) -> None:
        """Add the updates of a weight to its product: (rows, in features) and (rows, out features)."""
        plan = self._plans[len(x)]
        if plan.parts:
            self._stacks[weight].add(x, result, plan)
