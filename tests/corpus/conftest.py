"""Buckets in memory, which fsspec reaches in the same way as S3."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import fsspec
import pytest

ADDRESS = "memory://shop/corpus"


@pytest.fixture
def bucket() -> Iterator[Any]:
    """The file system of `memory://`, empty."""
    files = fsspec.filesystem("memory")
    files.store.clear()
    yield files
    files.store.clear()


def objects(files: Any, folder: str = "/shop/corpus") -> list[str]:
    """The names of the objects in a folder."""
    return [name.removeprefix(f"{folder}/") for name in files.find(folder)]
