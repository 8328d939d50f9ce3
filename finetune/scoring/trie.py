"""Answers as a tree of tokens: what several of them begin with is computed once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

ROOT = 0  # the node of the prompt, which has no token


@dataclass(frozen=True)
class Trie:
    """Sequences of tokens as a tree; parents have lower numbers than their children.

    Args:
        tokens: of each node; that of the root counts for nothing.
        parents: the number of each node's parent; that of the root is its own.
        paths: the nodes of each sequence, without the root.
    """

    tokens: tuple[int, ...]
    parents: tuple[int, ...]
    paths: tuple[tuple[int, ...], ...]

    @cached_property
    def inner(self) -> tuple[int, ...]:
        """The nodes that a model reads: those with children, without the root."""
        return tuple(sorted({parent for parent in self.parents[1:] if parent != ROOT}))

    @cached_property
    def depths(self) -> tuple[int, ...]:
        """The number of tokens up to each node."""
        depths = [0]
        for parent in self.parents[1:]:
            depths.append(depths[parent] + 1)
        return tuple(depths)

    @cached_property
    def slots(self) -> tuple[int, ...]:
        """For each node but the root, which one its parent is of the root (0) and the inner nodes (from 1)."""
        places = {node: slot for slot, node in enumerate((ROOT, *self.inner))}
        return tuple(places[parent] for parent in self.parents[1:])

    @cached_property
    def children(self) -> tuple[dict[int, int], ...]:
        """The children of each node by their tokens."""
        children: tuple[dict[int, int], ...] = tuple({} for _ in self.tokens)
        for node, parent in enumerate(self.parents[1:], 1):
            children[parent][self.tokens[node]] = node
        return children

    @cached_property
    def below(self) -> tuple[frozenset[int], ...]:
        """The numbers of the sequences that pass through each node."""
        below: list[set[int]] = [set() for _ in self.tokens]
        for number, path in enumerate(self.paths):
            for node in (ROOT, *path):
                below[node].add(number)
        return tuple(map(frozenset, below))

    @cached_property
    def visible(self) -> NDArray[np.bool_]:
        """Which inner nodes each inner node sees: itself and those above it; (inner, inner)."""
        sees = np.eye(len(self.inner), dtype=np.bool_)
        for row, node in enumerate(self.inner):
            if self.parents[node] != ROOT:
                sees[row] |= sees[self.inner.index(self.parents[node])]
        return sees

    def sum_paths(self, logprobs: Sequence[float]) -> list[float]:
        """The log-probability of each sequence from those of the nodes without the root."""
        return [sum(logprobs[node - 1] for node in path) for path in self.paths]

    def pick_greedily(self, logprobs: Sequence[float]) -> int:
        """The number of the sequence that greedy decoding along the tree ends with; none may be the beginning of another."""
        best: dict[int, int] = {}
        for node, parent in enumerate(self.parents[1:], 1):
            if parent not in best or logprobs[node - 1] > logprobs[best[parent] - 1]:
                best[parent] = node
        node = ROOT
        while node in best:
            node = best[node]
        return next(number for number, path in enumerate(self.paths) if path[-1] == node)


def build_trie(sequences: Sequence[Sequence[int]]) -> Trie:
    """The tree of token sequences."""
    children: dict[tuple[int, int], int] = {}
    tokens, parents, paths = [-1], [ROOT], []
    for sequence in sequences:
        node, path = ROOT, []
        for token in sequence:
            if (node, token) not in children:
                children[node, token] = len(tokens)
                tokens.append(token)
                parents.append(node)
            node = children[node, token]
            path.append(node)
        paths.append(tuple(path))
    return Trie(tuple(tokens), tuple(parents), tuple(paths))
