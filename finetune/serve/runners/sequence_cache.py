"""Keys and values of sequences: of short ones that are in progress in common tensors, so that one operation reads them all."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

BLOCK = 64  # tokens; caches of their own grow by at least this, and by half
POOLED = 512  # tokens of a sequence, up to which it is in the common tensors
States = tuple[Tensor, Tensor]


class SequencePool:
    """Keys and values of up to `rows` sequences by layer, (rows, heads, tokens, width). Memory is taken as tokens arrive."""

    def __init__(self, rows: int) -> None:
        self._rows = rows
        self._layers: dict[nn.Module, States] = {}

    def states(self, layer: nn.Module, key: Tensor, value: Tensor) -> States:
        """Those of a layer, of which some are given: (tokens, heads, width)."""
        states = self._layers.get(layer)
        if states is None:
            states = self._layers[layer] = self._reserve(key), self._reserve(value)
        return states

    def _reserve(self, like: Tensor) -> Tensor:
        """Zeros, because what is behind a sequence is read; those of NumPy take no memory before they are written."""
        _, heads, width = like.shape
        numbers = np.zeros(self._rows * heads * POOLED * width * like.element_size(), np.uint8)
        return torch.from_numpy(numbers).view(like.dtype).view(self._rows, heads, POOLED, width)


class SequenceCache:
    """The keys and values of one sequence by layer. `length` counts the tokens of the passes that are complete.

    With a pool, they are in a row of it until the sequence is too long; then `row` is None.
    """

    def __init__(self, pool: SequencePool | None = None, row: int | None = None) -> None:
        self.length = 0
        self.pool, self.row = pool, row
        self._layers: dict[nn.Module, States] = {}

    @property
    def bytes(self) -> int:
        """The memory that it takes outside a pool."""
        return sum(keys.nbytes + values.nbytes for keys, values in self._layers.values())

    @property
    def bytes_per_token(self) -> int:
        """The memory that each token takes."""
        return sum((keys.nbytes + values.nbytes) // keys.shape[2] for keys, values in self._layers.values())

    def extend(self, layer: nn.Module, key: Tensor, value: Tensor) -> States:
        """Append (1, heads, tokens, width) to a layer; returns all of its keys and values."""
        end = self.length + key.shape[2]
        states = self._layers.get(layer) or self._begin(layer, key, value)
        if states[0].shape[2] < end:
            self.row = None
            states = self._layers[layer] = _enlarge(states[0], end), _enlarge(states[1], end)
        keys, values = states
        keys[:, :, self.length : end] = key
        values[:, :, self.length : end] = value
        return keys[:, :, :end], values[:, :, :end]

    def copy(self, length: int) -> SequenceCache:
        """The first tokens, in memory of their own."""
        cache = SequenceCache()
        cache.length = length
        for layer, (keys, values) in self._layers.items():
            cache._layers[layer] = keys[:, :, :length].clone(), values[:, :, :length].clone()
        return cache

    def take(self, other: SequenceCache, length: int) -> None:
        """Begin with the first tokens of another sequence."""
        for layer, (keys, values) in other._layers.items():
            self.extend(layer, keys[:, :, :length], values[:, :, :length])
        self.length = length

    def _begin(self, layer: nn.Module, key: Tensor, value: Tensor) -> States:
        if self.pool is None or self.row is None:
            states = key[:, :, :0], value[:, :, :0]
        else:
            keys, values = self.pool.states(layer, *(each[0].transpose(0, 1) for each in (key, value)))
            states = keys[self.row : self.row + 1], values[self.row : self.row + 1]
        self._layers[layer] = states
        return states


def _enlarge(states: Tensor, tokens: int) -> Tensor:
    """The same states with room for more tokens."""
    _, heads, before, width = states.shape
    room = max(tokens, before + max(before // 2, BLOCK))
    larger = states.new_empty(1, heads, -(-room // BLOCK) * BLOCK, width)
    larger[:, :, :before] = states
    return larger
