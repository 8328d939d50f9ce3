"""What an engine does for the stages; every engine gives the same results."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")

RowNumbers = npt.NDArray[np.int64]
# (bands, rows) as `near.hash_bands` gives them, and the numbers of the rows
BandHashes = tuple[npt.NDArray[np.uint64], RowNumbers]


class Engine(Protocol):
    """Functions must be picklable, and must give the same when they are called again: a worker may die halfway."""

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """Yield `function(item)` for each item, in order.

        Raises:
            SlmtuneError: raised by the function, or because workers died.
        """

    def spread(self, expand: Callable[[T], Iterable[P]], function: Callable[[P], R], items: Sequence[T]) -> Iterator[R]:
        """Yield `function(piece)` for each piece that `expand` makes of each item, in order.

        Raises:
            SlmtuneError: raised by a function, or because workers died.
        """

    def rows_that_may_be_alike(
        self, hashes: Callable[[T], BandHashes], items: Sequence[T], rows: int
    ) -> RowNumbers | None:
        """The rows, ascending, that `near_duplicates` must look at; None: all.

        Args:
            hashes: gives the hashes of some rows.
            items: what `hashes` is called with.
            rows: the number of rows of all items.
        """
