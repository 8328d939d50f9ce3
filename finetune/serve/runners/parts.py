"""Which rows of a pass have which adapter, and what is added to their products."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

JOINT_FROM = 3  # adapters in a pass; for fewer, one product each is faster
LONG_PART = 8  # rows from which a part, such as a prompt, is a product of its own
MAX_PADDING = 4  # padded rows per row, up to which one product for all adapters is faster


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows of a pass that have the same adapter: its place in the stacks."""

    place: int
    rows: slice

    @property
    def length(self) -> int:
        """The number of rows, of a part that does not have all of them."""
        return int(self.rows.stop - self.rows.start)


@dataclass(frozen=True, slots=True)
class Joint:
    """Short parts of a pass, which are one product, each padded to the longest with its first row.

    If all parts have as many rows and follow each other, there is no need to pick rows: `padded` is None.
    """

    count: int  # of parts
    width: int  # rows of the longest
    places: Tensor
    is_first: bool  # the places are those from 0 on, in their order
    rows: slice | Tensor  # of the pass, in the order of the parts
    padded: Tensor | None  # the row of the pass at each place of the padded parts
    real: Tensor  # the places of the rows among the padded ones


@dataclass(frozen=True, slots=True)
class Plan:
    """The adapters of the rows of a pass: `alone` are those of its parts that are not in `joint`."""

    parts: tuple[Part, ...]
    alone: tuple[Part, ...]
    joint: Joint | None = None


def make_plan(
    adapters: Sequence[tuple[str | None, int]], places: Mapping[str, int], device: torch.device | str = "cpu"
) -> Plan:
    """The plan of a pass in which each adapter has a number of rows; None is the base model."""
    parts, count = [], 0
    for name, group in itertools.groupby(adapters, key=lambda item: item[0]):
        end = count + sum(length for _, length in group)
        if name is not None:
            parts.append(Part(places[name], slice(count, end)))
        count = end
    short = [part for part in parts if part.length < LONG_PART]
    width = max((part.length for part in short), default=0)
    if len(short) < JOINT_FROM or len(short) * width > MAX_PADDING * sum(part.length for part in short):
        return Plan(tuple(parts), tuple(parts))
    return Plan(tuple(parts), tuple(part for part in parts if part not in short), _join(short, width, device))


def _join(parts: Sequence[Part], width: int, device: torch.device | str) -> Joint:
    numbers = [part.place for part in parts]
    starts, counts = (
        torch.tensor(each)[:, None] for each in zip(*((p.rows.start, p.length) for p in parts), strict=True)
    )
    columns = torch.arange(width)
    is_real = (columns < counts).flatten()
    padded = (starts + torch.where(columns < counts, columns, 0)).flatten()
    real = is_real.nonzero().flatten()
    rows = padded[real]
    first, last = int(rows[0]), int(rows[-1])
    are_neighbours = last - first + 1 == len(rows)
    return Joint(
        count=len(parts),
        width=width,
        places=torch.tensor(numbers, dtype=torch.long, device=device),
        is_first=numbers == [*range(len(numbers))],
        rows=slice(first, last + 1) if are_neighbours else rows.to(device),
        padded=None if are_neighbours and len(real) == len(padded) else padded.to(device),
        real=real.to(device),
    )


def everywhere(place: int) -> Plan:
    """The plan of a pass with one adapter, whatever its number of rows."""
    parts = (Part(place, slice(None)),)
    return Plan(parts, parts)


class UpdateStack:
    """The matrices of all adapters for one weight; zero where an adapter has a lower rank, or none."""

    def __init__(self, down: Tensor, up: Tensor) -> None:
        self._down, self._up = down.new_zeros(0, 0, down.shape[1]), up.new_zeros(0, 0, up.shape[1])
        self._places = 0  # in the stacks; counted here, since `len` of a tensor takes as long as a small product

    @property
    def width(self) -> int:
        """The number of features that a product takes in."""
        return self._down.shape[2]

    def is_set(self, place: int) -> bool:
        """Whether the update of an adapter is not zero."""
        return place < self._places and bool(self._down[place].any() and self._up[place].any())

    def put(self, place: int, down: Tensor, up: Tensor) -> None:
        """Put an adapter at a place: (rank, in features) and (rank, out features)."""
        self.clear(place)
        self._down, self._up = _with(self._down, place, down), _with(self._up, place, up)
        self._places = len(self._down)

    def clear(self, place: int) -> None:
        """Remove an adapter."""
        if place < self._places:
            self._down[place] = self._up[place] = 0

    def add(self, x: Tensor, result: Tensor, plan: Plan) -> None:
        """Add the updates to a product, (rows, out features); x is (rows, in features), or the tokens of an embedding."""
        joint = plan.joint if x.is_floating_point() else None
        for part in plan.parts if joint is None else plan.alone:
            if part.place < self._places:
                _add(result[part.rows], _reduce(x[part.rows], self._down[part.place]), self._up[part.place])
        if joint is not None:
            self._add_joint(x, result, joint)

    def _add_joint(self, x: Tensor, result: Tensor, joint: Joint) -> None:
        down, up = (self._pick(stack, joint) for stack in (self._down, self._up))
        entering = x[joint.rows] if joint.padded is None else x.index_select(0, joint.padded)
        hidden = torch.bmm(entering.to(down.dtype).view(joint.count, joint.width, -1), down.mT)
        if joint.padded is None and result.dtype == up.dtype:
            result[joint.rows].view(joint.count, joint.width, -1).baddbmm_(hidden, up)
            return
        # Each row once and without its padding; with index_add_ over all padded rows, a pass took 4 to 6 % longer on a CPU.
        result[joint.rows] += torch.bmm(hidden, up).flatten(0, 1).index_select(0, joint.real)

    def _pick(self, stack: Tensor, joint: Joint) -> Tensor:
        """The matrices of parts; zero where the stack has none."""
        if joint.is_first and joint.count <= self._places:
            return stack if joint.count == self._places else stack[: joint.count]
        known = joint.places < self._places
        picked = stack[joint.places.where(known, 0)]
        return picked if bool(known.all()) else picked * known[:, None, None]


def _reduce(x: Tensor, down: Tensor) -> Tensor:
    """(rows, rank)"""
    return x.to(down.dtype) @ down.t() if x.is_floating_point() else down[:, x].t()


def _add(result: Tensor, hidden: Tensor, up: Tensor) -> None:
    """Add the product of two matrices to a third one, which is rounded only once if it has a lower precision."""
    if result.dtype == up.dtype:
        result.addmm_(hidden, up)
    else:
        result += hidden @ up


def _with(stack: Tensor, place: int, matrix: Tensor) -> Tensor:
    """A stack with a matrix at a place; if it has none there, or too low a rank, it is enlarged."""
    places = len(stack) if place < len(stack) else max(2 * len(stack), place + 1)
    rank = max(stack.shape[1], len(matrix))
    if (places, rank) != stack.shape[:2]:
        larger = stack.new_zeros(places, rank, stack.shape[2])
        larger[: len(stack), : stack.shape[1]] = stack
        stack = larger
    stack[place, : len(matrix)] = matrix
    return stack
