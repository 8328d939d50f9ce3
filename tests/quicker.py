"""What tests need not wait for: the disk, and checks of more texts than the tests of something else depend on."""

from __future__ import annotations

import json
import os
import sys
from functools import wraps
from pathlib import Path
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


def draw_once() -> None:
    """Draw one loss curve of each kind, and copy it where it would be drawn again; this takes a sixth of a small training.

    To be called again after tests have imported more: a module that none has imported stays unloaded.
    """
    plot: Any = sys.modules.get("finetune.train.plot")
    if plot is None or hasattr(plot.draw, "__wrapped__"):
        return
    draw, drawn = plot.draw, dict[object, bytes]()

    @wraps(draw)
    def copy(journal: Path, picture: Path, metric: str = "loss") -> None:
        lines = journal.read_text("utf-8").splitlines() if journal.is_file() else []
        kind = metric, frozenset(name for line in lines for name in json.loads(line))
        if kind not in drawn:
            draw(journal, picture, metric)
            drawn[kind] = picture.read_bytes()
        picture.write_bytes(drawn[kind])

    plot.draw = copy


def probe_less(probe: Any) -> None:
    """Keep every eighth item of the probe for forgetting; tests/evaluate/test_forgetting.py asks all of them."""
    read = probe._read
    probe._read = lambda name, kind: read(name, kind)[::8]
