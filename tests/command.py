"""Starts `slmtune` for the tests: to its end, or as a process that can be watched and killed.

Most commands are forked from a server that has already imported the libraries, which saves ten seconds per command.
Libraries read their settings during import. A forked command makes the Hub's client read its own again; with settings of
other libraries, a command starts in a new interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from multiprocessing import get_context
from multiprocessing.connection import Client, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.hub.settings import configure_libraries

ROOT = Path(__file__).resolve().parents[1]
SLMTUNE = (sys.executable, "-m", "finetune")
LIBRARIES = "tests.libraries"
POLL = 0.001  # seconds between two checks
OF_THE_HUB = ("HF_", "HOME", "NO_PROXY")  # how the names of variables begin that its client reads
PATIENCE = 300  # seconds after which a run that has not ended fails the test

# Its server computes nothing, so threads of torch in the test process do not matter.
processes = get_context("forkserver")
processes.set_forkserver_preload([LIBRARIES])


class Command:
    """A running `slmtune`; its output goes to files."""

    def __init__(
        self,
        *arguments: object,
        cwd: Path,
        before: Callable[[], None] | None = None,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self._output = Path(tempfile.mkdtemp(prefix="slmtune-command-"))
        weakref.finalize(self, shutil.rmtree, self._output)
        self.arguments = [str(argument) for argument in arguments]
        arguments = (self.arguments, cwd, dict(environment), self._output, before)
        self._process = processes.Process(target=_main, args=arguments)
        with chdir(ROOT):  # where a server that has to be started finds the libraries
            self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    @property
    def stderr(self) -> str:
        return self._read("stderr")

    @property
    def stdout(self) -> str:
        return self._read("stdout")

    def _read(self, name: str) -> str:
        """What has been written so far: nothing until the process has started."""
        file = self._output / name
        return file.read_text("utf-8") if file.exists() else ""

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
        """Whether it is still running after `seconds`."""
        self._process.join(seconds)
        return self.running

    def until(self, happened: Callable[[], object]) -> bool:
        """Wait until `happened` or the process has ended, and return whether it is still running."""
        while self.running and not happened():
            self._process.join(POLL)
        return self.running

    def until_step(self, step: int) -> bool:
        """Wait until the progress on stderr has reached a step."""
        return self.until(lambda: any(f"training: {n}/" in self.stderr for n in range(step, step + 50)))

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        self._process.join(PATIENCE)

    def wait(self) -> int:
        """The exit code; the negative number of the signal if one ended it."""
        self._process.join(PATIENCE)
        if self.running:
            self.kill()
            raise AssertionError(f"still running after {PATIENCE} seconds: {self.stderr}")
        assert self._process.exitcode is not None
        return self._process.exitcode


def run(
    *arguments: object, cwd: Path, env: Mapping[str, str | None] | None = None, fresh: bool = False
) -> subprocess.CompletedProcess[str]:
    """Run `slmtune` to its end.

    Args:
        env: variables to set, or to unset with None; if others than those of the Hub's client are among them, the command
            runs in a new interpreter.
        fresh: run in a new interpreter in any case, because its start is tested or measured.
    """
    words, env = [str(argument) for argument in arguments], env or {}
    fresh = fresh or not all(name.startswith(OF_THE_HUB) for name in env)
    settings: dict[str, str | None] = {**(fresh_environment() if fresh else os.environ), **env}
    environment = {name: value for name, value in settings.items() if value is not None}
    if fresh:
        command = [*SLMTUNE, *words]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
        )
    running = Command(*words, cwd=cwd, environment=environment)
    code = running.wait()
    return subprocess.CompletedProcess(words, code, running.stdout, running.stderr)


def use_terminal(path: str, *streams: int) -> None:
    """In the process of a command, as its `before`: let streams, by their numbers, be a terminal."""
    for stream in streams:
        os.dup2(os.open(path, os.O_RDWR), stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # multiprocessing has replaced it


PROGRAM = f"""#!{sys.executable} -S
import os, sys
from multiprocessing.connection import Client

with Client(sys.path[0] + "/socket") as connection:
    connection.send((sys.argv[1:], os.getcwd()))
    code, stdout, stderr = connection.recv()
sys.stdout.write(stdout)
sys.stderr.write(stderr)
sys.exit(code)
"""


@contextmanager
def installed() -> Iterator[Path]:
    """A folder with a program `slmtune` for shell scripts; what it is called with is forked as `Command` is."""
    with TemporaryDirectory(prefix="slmtune-bin-") as folder, Listener(f"{folder}/socket") as listener:
        program = Path(folder, "slmtune")
        program.write_text(PROGRAM, "utf-8")
        program.chmod(0o755)
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        try:
            yield program.parent
        finally:
            Client(listener.address).close()  # ends the thread


def _answer(listener: Listener) -> None:
    with suppress(EOFError):  # nothing was asked
        while True:
            with listener.accept() as connection:
                words, cwd = connection.recv()
                done = run(*words, cwd=Path(cwd))
                connection.send((done.returncode, done.stdout, done.stderr))


def fresh_environment() -> dict[str, str]:
    """The variables of this process, extended so that another interpreter finds this checkout from any folder."""
    search = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, search))}


def _read_settings() -> None:
    """Let the client of the Hub, which the server has imported, read the variables of this process."""
    from huggingface_hub import constants

    configure_libraries(offline="--offline" in sys.argv)
    importlib.reload(constants)


def _main(
    arguments: list[str], cwd: Path, environment: dict[str, str], output: Path, before: Callable[[], None] | None
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), number)
    assert LIBRARIES in sys.modules, "the server of forked commands could not import its libraries, and ignored that"
    sys.argv = ["slmtune", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _read_settings()
    if before is not None:
        before()
    from finetune.cli import main

    main()
