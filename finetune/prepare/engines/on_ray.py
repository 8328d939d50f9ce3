"""The engine of a cluster: Ray Data reads files, makes shards and groups the hashes of rows in processes on all nodes."""

from __future__ import annotations

import gc
import math
import os
import pickle
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import pyarrow as pa

from finetune.errors import ClusterError
from finetune.prepare.dedup.near import MOST_BANDS, rows_sharing
from finetune.prepare.engines.engine import BandHashes, P, R, RowNumbers, T
from finetune.prepare.engines.local import GARBAGE

RETRIES = 3  # of a task whose process died: a row that kills every process must end the run
BLOCK = 2**20  # bytes of pieces that one task takes: one block of a file
SHUFFLED = 2**27  # bytes of hashes in a partition of the shuffle, and in a group
PER_HASH = 24  # bytes: bucket, hash and row
TASKS = 64  # tasks per core, at most, that items are divided into: each takes Ray some milliseconds


class RayEngine:
    """Runs on the Ray that this program is connected to, with `cores` for tasks on all nodes."""

    def __init__(self, cores: int) -> None:
        self.cores = cores

    def map(self, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`."""
        if not items:  # of which Ray makes no data set
            return iter(())
        return _in_order(_apply(self._items(items, BLOCK), partial(_values_or_error, partial(_single, function))))

    def spread(self, expand: Callable[[T], Iterable[P]], function: Callable[[P], R], items: Sequence[T]) -> Iterator[R]:
        """See `Engine`. A quarter as many processes expand as there are cores: they mostly read."""
        from ray.data import TaskPoolStrategy

        if not items:
            return iter(())
        readers = TaskPoolStrategy(size=max(1, self.cores // 4))
        pieces = _apply(self._items(items, BLOCK), partial(_values_or_error, expand), num_cpus=0, compute=readers)
        return _in_order(_apply(pieces, partial(_values_or_error, partial(_single, function))))

    def rows_that_may_be_alike(
        self, hashes: Callable[[T], BandHashes], items: Sequence[T], rows: int
    ) -> RowNumbers | None:
        """See `Engine`. A shuffle brings the hashes of a band that begin with the same bits to one process."""
        if not items:
            return np.empty(0, np.int64)
        size = rows * PER_HASH / SHUFFLED
        bits = max(0, math.ceil(math.log2(size)))
        partitions = max(2 * self.cores, math.ceil(MOST_BANDS * size))
        hashed = _apply(self._items(items, SHUFFLED), partial(_bucket, hashes, bits))
        groups = hashed.groupby("bucket", num_partitions=partitions).map_groups(_rows_alike, batch_format="pyarrow")
        found = [table["row"].to_numpy() for table in _tables(groups) if len(table)]
        return np.unique(np.concatenate([np.empty(0, np.int64), *found]))

    def _items(self, items: Sequence[T], block: int) -> Any:
        """A data set of the items; many of them share a task."""
        import ray
        from ray.data import DataContext

        context = DataContext.get_current().copy()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        context.target_max_block_size = block
        size = math.ceil(len(items) / (TASKS * self.cores)) or 1
        with DataContext.current(context):
            return ray.data.from_arrow([_pack(items[at : at + size]) for at in range(0, len(items), size)])


def _apply(data: Any, function: Callable[[Any], Iterator[pa.Table]], **settings: Any) -> Any:
    """The data set of the tables that a function makes of each item."""
    import ray
    from ray.util.annotations import RayDeprecationWarning

    call = partial(_apply_to_table, ray.put((os.getcwd(), function)))
    with warnings.catch_warnings():
        # Options of a task get parameters of their own, but this one has none yet (Ray 2.60).
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return data.map_batches(call, batch_size=None, batch_format="pyarrow", max_retries=RETRIES, **settings)


def _in_order(data: Any) -> Iterator[Any]:
    """The values of a data set, in order; raises the first error that a function raised."""
    for table in _tables(data):
        for value in _unpack(table):
            if isinstance(value, _Raised):
                raise value.error
            yield value


def _tables(data: Any) -> Iterator[pa.Table]:
    from ray.exceptions import RayError

    try:
        yield from data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except RayError as error:
        raise ClusterError(
            f"A worker of Ray died, also when its work was repeated ({type(error).__name__}); possibly for lack of memory. Run "
            "the command again: it continues. The logs of Ray on its node say why: ray logs"
        ) from error


# --- what runs in the processes of Ray --------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Raised:
    """What a function raised, on its way to the program that asked."""

    error: Exception


def _apply_to_table(function: Any, table: pa.Table) -> Iterator[pa.Table]:
    """Call the function, stored as an object of Ray, with each item of a table."""
    for item in _unpack(table):
        yield from _load_function(function)(item)


@lru_cache(maxsize=4)
def _load_function(function: Any) -> Callable[[Any], Iterator[pa.Table]]:
    """Load a function once in this process: it may have an index of eval sets, and a model."""
    import ray

    gc.freeze()
    gc.set_threshold(GARBAGE)
    folder: str
    loaded: Callable[[Any], Iterator[pa.Table]]
    folder, loaded = ray.get(function)
    with suppress(OSError):  # no source has a relative path if the folder is not there: `check_nodes` would not see it
        os.chdir(folder)
    return loaded


def _values_or_error(function: Callable[[Any], Iterable[Any]], item: Any) -> Iterator[pa.Table]:
    """The values that a function makes of an item, one by one, or what it raises."""
    try:
        for value in [item] if isinstance(item, _Raised) else function(item):
            yield _pack([value])
    except Exception as error:
        yield _pack([_Raised(error)])


def _single(function: Callable[[Any], Any], item: Any) -> list[Any]:
    return [function(item)]


def _bucket(hashes: Callable[[Any], BandHashes], bits: int, item: Any) -> Iterator[pa.Table]:
    """Bucket, hash and row of every band of some rows; a bucket is a band and the first bits of the hash."""
    table, rows = hashes(item)
    first = (table >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(table.shape, np.int64)
    buckets = (np.arange(len(table))[:, None] << bits) | first
    yield pa.table({"bucket": buckets.ravel(), "hash": table.ravel(), "row": np.tile(rows, len(table))})


def _rows_alike(bucket: pa.Table) -> pa.Table:
    """The rows of a bucket that have a hash in common with another one."""
    return pa.table({"row": rows_sharing(bucket["hash"].to_numpy(), bucket["row"].to_numpy())})


def _pack(values: Sequence[Any]) -> pa.Table:
    """Values as a table, which is what Ray passes between processes."""
    return pa.table({"value": pa.array([pickle.dumps(value) for value in values], pa.large_binary())})


def _unpack(table: pa.Table) -> Iterator[Any]:
    for value in table["value"]:
        yield pickle.loads(value.as_buffer())
