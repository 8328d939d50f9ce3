"""The tokens of a pass of llama.cpp."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import POINTER, c_int8, c_int32, cast

import numpy as np

from finetune.models.llama_library import Batch

PASS = 512  # tokens of a pass


class BatchArrays:
    """The arrays of a pass, as llama.cpp reads them."""

    def __init__(self) -> None:
        self._tokens, self._places, self._sequences = (np.zeros(PASS, np.int32) for _ in range(3))
        self._outputs, self._counts = np.zeros(PASS, np.int8), np.ones(PASS, np.int32)
        first = self._sequences.ctypes.data
        pointers = [cast(first + 4 * number, POINTER(c_int32)) for number in range(PASS)]
        self._pointers = (POINTER(c_int32) * PASS)(*pointers)
        arrays = (self._tokens, self._places, self._counts)
        token, pos, counts = (array.ctypes.data_as(POINTER(c_int32)) for array in arrays)
        self.header = Batch(0, token, None, pos, counts, self._pointers, self._outputs.ctypes.data_as(POINTER(c_int8)))

    def fill(self, pieces: Sequence[tuple[int, int, tuple[int, ...], bool]]) -> list[int]:
        """Fill in slots, first positions and tokens; returns the places of the last tokens of which logits are wanted."""
        start, ends = 0, []
        for slot, place, tokens, is_end in pieces:
            end = start + len(tokens)
            self._tokens[start:end], self._sequences[start:end] = tokens, slot
            self._places[start:end], self._outputs[start:end] = np.arange(place, place + len(tokens)), 0
            if is_end:
                self._outputs[end - 1] = 1
                ends.append(end - 1)
            start = end
        self.header.n_tokens = start
        return ends


def split_passes(pieces: Sequence[tuple[int, tuple[int, ...]]]) -> list[list[tuple[int, tuple[int, ...], bool]]]:
    """Divide extensions into passes: the number of each, its tokens in that pass, and whether they are its last ones."""
    passes: list[list[tuple[int, tuple[int, ...], bool]]] = [[]]
    room = PASS
    for number, tokens in pieces:
        while tokens:
            if not room:
                passes.append([])
                room = PASS
            head, tokens = tokens[:room], tokens[room:]
            passes[-1].append((number, head, not tokens))
            room -= len(head)
    return passes
