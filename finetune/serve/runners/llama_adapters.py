"""The adapters of a model in llama.cpp: what they add to the products of its weights, each row with its own."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from finetune.serve.runners.parts import Part, divide_rows

JOINT_FROM = 3  # adapters in a pass; for fewer, one product each is faster
MAX_PADDING = 4  # padded rows per row, up to which one product for all adapters is faster

Matrices = tuple[Tensor, Tensor]  # (rank, in features) and (rank, out features), the second one scaled


@dataclass(frozen=True, slots=True)
class Plan:
    """The adapters of the rows of a pass. With `index`, (parts, rows of the largest), all of them are one product.

    `index` repeats a row where a part has fewer, and `weights`, (parts, rows of the largest, 1), are zero there. If all parts
    have as many rows, and together all of them, there is no need to pick rows: `is_even`.
    """

    parts: tuple[Part, ...]
    places: Tensor
    is_first: bool  # the places are those from 0 on, in their order
    index: Tensor | None = None
    weights: Tensor | None = None
    is_even: bool = False


class _Stack:
    """The matrices of all adapters for one weight; zero where an adapter has a lower rank, or none."""

    def __init__(self, like: Matrices) -> None:
        self.down, self.up = (matrix.new_zeros(0, 0, matrix.shape[1]) for matrix in like)

    def put(self, place: int, matrices: Matrices) -> None:
        self.clear(place)
        self.down, self.up = (
            _with(stack, place, matrix) for stack, matrix in zip((self.down, self.up), matrices, strict=True)
        )

    def clear(self, place: int) -> None:
        if place < len(self.down):
            self.down[place] = self.up[place] = 0

    def add(self, x: Tensor, result: Tensor, plan: Plan) -> None:
        if plan.index is None or plan.weights is None:
            for part in plan.parts:
                if part.place < len(self.down):
                    result[part.rows].addmm_(x[part.rows] @ self.down[part.place].t(), self.up[part.place])
            return
        down, up = (_pick(stack, plan) for stack in (self.down, self.up))
        if plan.is_even:
            hidden = torch.bmm(x.view(*plan.index.shape, -1), down.transpose(1, 2))
            result.view(*plan.index.shape, -1).baddbmm_(hidden, up)
            return
        flat = plan.index.flatten()
        hidden = torch.bmm(x[flat].view(*plan.index.shape, -1), down.transpose(1, 2)).mul_(plan.weights)
        result.index_add_(0, flat, torch.bmm(hidden, up).flatten(0, 1))


class LlamaAdapters:
    """Adapters by name, and which rows of the next pass have which."""

    def __init__(self) -> None:
        self._stacks: dict[str, _Stack] = {}  # by the name of the weight in llama.cpp
        self._places: dict[str, int] = {}
        self._plans: dict[int, Plan] = {}  # by the number of rows

    def __contains__(self, weight: str) -> bool:
        return weight in self._stacks

    @property
    def active(self) -> bool:
        """Whether a row of the next pass has an adapter."""
        return any(plan.parts for plan in self._plans.values())

    def put(self, name: str, updates: Mapping[str, Matrices]) -> None:
        """Add an adapter under a name that is free: its matrices by the name of the weight."""
        place = next(number for number in itertools.count() if number not in self._places.values())
        for weight, matrices in updates.items():
            self._stacks.setdefault(weight, _Stack(matrices)).put(place, matrices)
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
        self._plans = {len(outputs): self._make_plan([(name, 1) for name in outputs])}
        self._plans[sum(count for _, count in adapters)] = self._make_plan(adapters)

    def add(self, weight: str, x: Tensor, result: Tensor) -> None:
        """Add the updates of a weight to its product: (rows, in features) and (rows, out features)."""
        plan = self._plans[len(x)]
        if plan.parts:
            self._stacks[weight].add(x, result, plan)

    def _make_plan(self, adapters: Sequence[tuple[str | None, int]]) -> Plan:
        parts, count = divide_rows(adapters, self._places)
        places = torch.tensor([part.place for part in parts], dtype=torch.long)
        is_first = [part.place for part in parts] == [*range(len(parts))]
        lengths = [part.rows.stop - part.rows.start for part in parts]
        width = max(lengths, default=0)
        if len(parts) < JOINT_FROM or len(parts) * width > MAX_PADDING * sum(lengths):
            return Plan(tuple(parts), places, is_first)
        numbers, counts = torch.arange(width), torch.tensor(lengths)[:, None]
        starts = torch.tensor([part.rows.start for part in parts])[:, None]
        weights = (numbers < counts).float()[..., None]
        index = starts + torch.where(numbers < counts, numbers, 0)
        is_even = index.flatten().tolist() == [*range(count)]
        return Plan(tuple(parts), places, is_first, index, weights, is_even)


def _with(stack: Tensor, place: int, matrix: Tensor) -> Tensor:
    """A stack with a matrix at a place, enlarged if it has none there, or too low a rank."""
    places, rank = max(len(stack), place + 1), max(stack.shape[1], len(matrix))
    if (places, rank) != stack.shape[:2]:
        larger = stack.new_zeros(places, rank, stack.shape[2])
        larger[: len(stack), : stack.shape[1]] = stack
        stack = larger
    stack[place, : len(matrix)] = matrix
    return stack


def _pick(stack: Tensor, plan: Plan) -> Tensor:
    """The matrices of the parts of a plan; zero where the stack has none."""
    if plan.is_first and len(plan.places) <= len(stack):
        return stack[: len(plan.places)]
    known = plan.places < len(stack)
    picked = stack[plan.places.where(known, 0)]
    return picked if bool(known.all()) else picked * known[:, None, None]
