"""A place for what trackers log, and no network."""

from __future__ import annotations

import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from ..quicker import commit_without_waiting


@pytest.fixture(scope="session", autouse=True)
def quick_commits() -> None:
    commit_without_waiting()


@pytest.fixture
def tracked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of what is logged; every connection to another machine fails the test."""
    folder = tmp_path / "tracked"
    monkeypatch.setenv("WANDB_DIR", str(folder))
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(folder))
    monkeypatch.setattr("trackio.sqlite_storage.TRACKIO_DIR", folder)  # read from TRACKIO_DIR during import
    for variable in ("PYTEST_CURRENT_TEST", "CI"):
        monkeypatch.delenv(variable, raising=False)  # they turn telemetry off
    monkeypatch.setattr(socket.socket, "connect", _refuse(socket.socket.connect))
    return folder


def _refuse(connect: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
    def local(self: socket.socket, address: Any) -> None:
        assert self.family == socket.AF_UNIX or address[0] in ("127.0.0.1", "::1"), f"connects to {address}"
        connect(self, address)

    return local
