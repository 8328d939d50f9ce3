"""What tests need not wait for: the disk, and checks of more texts than the tests of something else depend on."""

from __future__ import annotations

import os
import sys
from typing import Any

SHORTER = {"held_out": {"ROWS": 12}, "distance": {"GREEDY_TOKENS": 16}}


def write_without_waiting() -> None:
    """Leave it to the system when files reach the disk: no test cuts the power.

    Not in commands, which tests kill while they are writing.
    """
    vars(os)["fsync"] = lambda handle: None


def commit_without_waiting() -> None:
    """The same for databases of SQLAlchemy, in which sweeps and MLflow make hundreds of commits."""
    from sqlalchemy import Engine, event

    event.listen(Engine, "connect", lambda connection, _: connection.execute("PRAGMA synchronous = OFF"))


def compare_less() -> None:
    """Let merges and exports compare fewer and shorter texts; modules that no test has imported stay unloaded."""
    for name, changes in SHORTER.items():
        if module := sys.modules.get(f"finetune.merge.{name}"):
            vars(module).update(changes)


def probe_less(probe: Any) -> None:
    """Keep every eighth item of the probe for forgetting; tests/evaluate/test_forgetting.py asks all of them."""
    read = probe._read
    probe._read = lambda name, kind: read(name, kind)[::8]
