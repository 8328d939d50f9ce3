"""Which adapters are in memory: those used last; the others are read again from their folders when they are asked for."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import AdapterMemoryError, ArtifactError, InputError
from finetune.models.tensor_file import list_tensors

WEIGHTS = "adapter_model.safetensors"
NUMBER_BYTES = 4  # of a weight in memory, whatever it is in the file


@dataclass(frozen=True, slots=True)
class Source:
    """The folder of an adapter, the size and time of its file when it was loaded, and the bytes of its weights in memory."""

    folder: Path
    stamp: tuple[int, int]
    size: int


class ResidentAdapters:
    """Keeps up to `limit` adapters in memory, and more only while all of them are in use; never more than `room` bytes.

    `read` brings an adapter into memory, `drop` removes it.
    """

    def __init__(
        self, limit: int, read: Callable[[str, Path], None], drop: Callable[[str], None], room: int | None = None
    ) -> None:
        self._limit, self._read, self._drop, self._room = limit, read, drop, room
        self._sources: dict[str, Source] = {}
        self._resident: dict[str, None] = {}  # the most recently used last

    def add(self, name: str, folder: Path, in_use: Collection[str | None]) -> None:
        """Bring an adapter into memory under a name that is free. Raises what `read` raises.

        Raises:
            AdapterMemoryError: it does not fit beside those in use.
        """
        source = Source(folder, _stamp(folder), _size(folder))
        self._make_room(source.size, in_use)
        self._read(name, folder)
        self._resident[name] = None
        self._sources[name] = source

    def use(self, name: str, in_use: Collection[str | None]) -> None:
        """Make sure that an adapter is in memory.

        Raises:
            AdapterMemoryError: it does not fit beside those in use.
            ArtifactError: its files have changed since it was added.
        """
        if name in self._resident:
            self._resident[name] = self._resident.pop(name)
            return
        source = self._sources[name]
        if _stamp(source.folder) != source.stamp:
            raise ArtifactError(f"The adapter at {source.folder} has changed since it was loaded. Load it again")
        self._make_room(source.size, in_use)
        self._read(name, source.folder)
        self._resident[name] = None

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        del self._sources[name]
        if name in self._resident:
            del self._resident[name]
            self._drop(name)

    def _make_room(self, size: int, in_use: Collection[str | None]) -> None:
        """Drop those used least recently, as far as needed and not in use."""
        needed = sum(self._sources[name].size for name in self._resident if name in in_use)
        if self._room is not None and needed + size > self._room:
            raise AdapterMemoryError(size, needed, self._room)
        for name in [name for name in self._resident if name not in in_use]:
            taken = sum(self._sources[other].size for other in self._resident)
            if len(self._resident) < self._limit and (self._room is None or taken + size <= self._room):
                break
            del self._resident[name]
            self._drop(name)


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        status = (folder / WEIGHTS).stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


def _size(folder: Path) -> int:
    """Bytes of the weights in memory; 0 if the file cannot be read, which is found out when it is loaded."""
    try:
        tensors = list_tensors(folder / WEIGHTS).values()
    except (OSError, InputError):
        return 0
    return NUMBER_BYTES * sum(math.prod(tensor.form.shape) for tensor in tensors)
