"""Which rows of a pass have which adapter."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Part:
    """Neighbouring rows of a pass that have the same adapter: its place in the stacks."""

    place: int
    rows: slice


def divide_rows(adapters: Sequence[tuple[str | None, int]], places: Mapping[str, int]) -> tuple[list[Part], int]:
    """The parts of a pass, and its number of rows; each adapter has a number of rows, and None is the base model."""
    parts, start = [], 0
    for name, group in itertools.groupby(adapters, key=lambda item: item[0]):
        end = start + sum(count for _, count in group)
        if name is not None:
            parts.append(Part(places[name], slice(start, end)))
        start = end
    return parts, start
