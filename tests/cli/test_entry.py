"""Signals that end a command, wherever in the code they arrive."""

from __future__ import annotations

import os
import signal
import time
from functools import partial
from pathlib import Path

import pytest

from tests.command import Command


class Finalized:
    """Its finalizer receives the signal, as `zipfile.ZipFile.__del__` once did while torch read a checkpoint."""

    def __init__(self, number: signal.Signals) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        time.sleep(0.01)


def work_through_a_finalizer(number: signal.Signals) -> None:
    """Replace what the command does; the entry point around it is the real one."""
    from finetune.cli.commands import cli

    def work(standalone_mode: bool) -> None:
        Finalized(number)
        time.sleep(60)

    cli.main = work  # type: ignore[method-assign, assignment]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signal_during_a_finalizer_is_not_lost(tmp_path: Path, number: signal.Signals, code: int) -> None:
    run = Command("doctor", cwd=tmp_path, before=partial(work_through_a_finalizer, number))
    assert run.wait() == code, run.stderr
    assert run.stderr.splitlines() == ["Error: Interrupted" if number is signal.SIGINT else "Error: Terminated"]
