"""Sweeps do not wait for the disk."""

from __future__ import annotations

import pytest

from ..quicker import commit_without_waiting


@pytest.fixture(scope="session", autouse=True)
def quick_commits() -> None:
    commit_without_waiting()
