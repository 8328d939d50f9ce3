"""Runs commands for a benchmark, and returns their duration, peak memory and output."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class CompletedRun:
    """A process that has ended: exit code, seconds, peak resident bytes of its largest process, stdout and stderr."""

    code: int
    seconds: float
    peak: int
    output: str
    messages: str

    def object(self) -> dict[str, Any]:
        """The JSON object in the last line of the output."""
        data: dict[str, Any] = json.loads(self.output.strip().splitlines()[-1])
        return data


def run(
    name: str, command: list[str], folder: Path, environment: Mapping[str, str] | None = None, *, check: bool = True
) -> CompletedRun:
    """Run a command to its end; with `check`, a failure ends the benchmark with the output of the command.

    The peak comes from the kernel (wait4). It is at least the peak of this process, because exec does not reset it: a
    script that measures memory must not import heavy libraries itself.
    """
    started = time.perf_counter()
    with (folder / f"{name}.out").open("w") as out, (folder / f"{name}.err").open("w") as err:
        process = subprocess.Popen(command, stdout=out, stderr=err, env=environment)
        _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = usage.ru_maxrss if sys.platform == "darwin" else usage.ru_maxrss * 1024  # kilobytes on Linux
    output, messages = ((folder / f"{name}.{end}").read_text("utf-8", "replace") for end in ("out", "err"))
    if check and process.returncode:
        end = f"{output}\n{messages}"[-5000:]
        raise SystemExit(f"{name} ended with {process.returncode}:\n{' '.join(command)}\n{end}")
    return CompletedRun(process.returncode, seconds, peak, output, messages)
