"""Which adapters are in memory: those used last; the others are read again from their folders when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import ArtifactError


@dataclass(frozen=True, slots=True)
class Source:
    """The folder of an adapter, and the size and time of its weights when it was loaded."""

    folder: Path
    stamp: tuple[int, int]


class ResidentAdapters:
    """Keeps up to `limit` adapters in memory, and more only while all of them are in use.

    `read` brings an adapter into memory, `drop` removes it.
    """

    def __init__(self, limit: int, read: Callable[[str, Path], None], drop: Callable[[str], None]) -> None:
        self._limit, self._read, self._drop = limit, read, drop
        self._sources: dict[str, Source] = {}
        self._resident: dict[str, None] = {}  # the most recently used last

    def add(self, name: str, folder: Path, in_use: Collection[str | None]) -> None:
        """Bring an adapter into memory under a name that is free. Raises what `read` raises."""
        self._make_room(in_use)
        self._read(name, folder)
        self._resident[name] = None
        self._sources[name] = Source(folder, _stamp(folder))

    def use(self, name: str, in_use: Collection[str | None]) -> None:
        """Make sure that an adapter is in memory.

        Raises:
            ArtifactError: its files have changed since it was added.
        """
        if name in self._resident:
            self._resident[name] = self._resident.pop(name)
            return
        source = self._sources[name]
        if _stamp(source.folder) != source.stamp:
            raise ArtifactError(f"The adapter at {source.folder} has changed since it was loaded. Load it again")
        self._make_room(in_use)
        self._read(name, source.folder)
        self._resident[name] = None

    def remove(self, name: str) -> None:
        """Forget an adapter."""
        del self._sources[name]
        if name in self._resident:
            del self._resident[name]
            self._drop(name)

    def _make_room(self, in_use: Collection[str | None]) -> None:
        idle = [name for name in self._resident if name not in in_use]
        for name in idle[: max(0, len(self._resident) + 1 - self._limit)]:
            del self._resident[name]
            self._drop(name)


def _stamp(folder: Path) -> tuple[int, int]:
    try:
        status = (folder / "adapter_model.safetensors").stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
