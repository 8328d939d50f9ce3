"""`slmtune` as a process that can be killed, started from a server that has imported the libraries already."""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable
from multiprocessing import get_context
from pathlib import Path
from typing import Any

LIBRARIES = [
    "finetune.cli.commands",
    "finetune.train.fit",
    "finetune.train.trainer",
    "transformers.models.llama.modeling_llama",
]
POLL = 0.001  # seconds between two looks
PATIENCE = 300  # seconds until a run that does not end fails the test

processes = get_context("forkserver")  # its server computes nothing, so threads of a test's own torch do not matter
processes.set_forkserver_preload(LIBRARIES)


class Command:
    """A running `slmtune`; its output goes to files."""

    def __init__(self, *arguments: object, cwd: Path, before: Callable[[], None] | None = None) -> None:
        self._output = Path(tempfile.mkdtemp())
        self.arguments = [str(argument) for argument in arguments]
        self._process = processes.Process(target=_main, args=(self.arguments, cwd, self._output, before))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def stderr(self) -> str:
        file = self._output / "stderr"
        return file.read_text("utf-8") if file.exists() else ""

    @property
    def stdout(self) -> str:
        return (self._output / "stdout").read_text("utf-8")

    @property
    def result(self) -> dict[str, Any]:
        answer: dict[str, Any] = json.loads(self.stdout)
        return answer

    @property
    def running(self) -> bool:
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def runs_on_for(self, seconds: float) -> bool:
        """Whether it is still running after so many seconds."""
        self._process.join(seconds)
        return self.running

    def until(self, happened: Callable[[], object]) -> bool:
        """Wait until something has happened or the process has ended; whether it still runs."""
        while self.running and not happened():
            self._process.join(POLL)
        return self.running

    def until_step(self, step: int) -> bool:
        """Wait until the progress on stderr has come to a step."""
        return self.until(lambda: any(f"training: {n}/" in self.stderr for n in range(step, step + 50)))

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.join(PATIENCE)

    def wait(self) -> int:
        """The exit code."""
        self._process.join(PATIENCE)
        assert self._process.exitcode is not None, f"still running: {self.stderr}"
        return self._process.exitcode


def _main(arguments: list[str], cwd: Path, output: Path, before: Callable[[], None] | None) -> None:
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), number)
    sys.argv = ["slmtune", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if before is not None:
        before()
    from finetune.cli.commands import main

    main()
