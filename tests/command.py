"""Starts `slmtune` for the tests: to its end, or as a process that can be watched and killed.

Most commands are forked from a server that has already imported the libraries, which saves ten seconds per command.
Libraries read their settings during import. A forked command makes the Hub's client read its own again, and prints in the
encoding that it is given; with settings of other libraries, a command starts in a new interpreter.
"""

from __future__ import annotations

import importlib
import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import chdir, contextmanager, suppress
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Client, Listener
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from finetune.hub.settings import configure_libraries

ROOT = Path(__file__).resolve().parents[1]
SLMTUNE = (sys.executable, "-m", "finetune")
LIBRARIES = "tests.libraries"
ENCODING = "PYTHONIOENCODING"
POLL = 0.005  # seconds between two checks
# How the names of variables begin that a forked command heeds: those of the Hub's client, of slmtune, and of its output.
HEEDED = ("HF_", "HOME", "NO_PROXY", "SLMTUNE_", ENCODING)
PATIENCE = 300  # seconds after which a run that has not ended fails the test

# Its server computes nothing, so threads of torch in the test process do not matter.
processes = get_context("forkserver")
processes.set_forkserver_preload([LIBRARIES])


class Command:
    """A running `slmtune`, or what `main` makes of the arguments instead; its output goes to files."""

    def __init__(
        self,
        *arguments: object,
        cwd: Path,
        before: Callable[[], None] | None = None,
        environment: Mapping[str, str] = os.environ,
        main: Callable[[list[str]], None] | None = None,
    ) -> None:
        self._output = Path(tempfile.mkdtemp(prefix="slmtune-command-"))
        weakref.finalize(self, shutil.rmtree, self._output)
        self.arguments = [str(argument) for argument in arguments]
        settings = (self.arguments, cwd, dict(environment), self._output, before, main or _slmtune)
        self._process = processes.Process(target=_main, args=settings)
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
        return self.until(lambda: any(int(each) >= step for each in re.findall(r"training: (\d+)/", self.stderr)))

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
        env: variables to set, or to unset with None; if others than `HEEDED` are among them, the command runs in a new
            interpreter.
        fresh: run in a new interpreter in any case, because its start is tested or measured.
    """
    words, env = [str(argument) for argument in arguments], env or {}
    fresh = fresh or not all(name.startswith(HEEDED) for name in env)
    settings: dict[str, str | None] = {**(fresh_environment() if fresh else os.environ), **env}
    environment = {name: value for name, value in settings.items() if value is not None}
    if fresh:
        command = [*SLMTUNE, *words]
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, encoding="utf-8", timeout=PATIENCE, check=False
        )
    return _complete(Command(*words, cwd=cwd, environment=environment))


def python(
    *words: object, cwd: Path, env: Mapping[str, str] = os.environ, executable: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run `python -c PROGRAM`, `python -m MODULE` or `python SCRIPT` to its end, forked like a command.

    Args:
        env: all variables of the program, of which it heeds `HEEDED`.
        executable: the Python with which it starts others.
    """
    before = partial(_call_python, str(executable)) if executable else None
    return _complete(Command(*words, cwd=cwd, environment=env, before=before, main=python_words))


def _complete(running: Command) -> subprocess.CompletedProcess[str]:
    code = running.wait()
    return subprocess.CompletedProcess(running.arguments, code, running.stdout, running.stderr)


def use_terminal(path: str, *streams: int) -> None:
    """In the process of a command, as its `before`: let streams, by their numbers, be a terminal."""
    for stream in streams:
        os.dup2(os.open(path, os.O_RDWR), stream)
    sys.stdin = os.fdopen(0, encoding="utf-8", closefd=False)  # multiprocessing has replaced it


PROGRAM = f"""#!{sys.executable} -S
import os, sys
from multiprocessing.connection import Client

with Client(sys.path[0] + "/socket") as connection:
    connection.send((*sys.argv, os.getcwd(), dict(os.environ)))
    code, stdout, stderr = connection.recv()
sys.stdout.write(stdout)
sys.stderr.write(stderr)
sys.exit(code)
"""


@contextmanager
def installed() -> Iterator[Path]:
    """A folder with programs `slmtune` and `python` for scripts; what they are called with is forked as `Command` is."""
    with TemporaryDirectory(prefix="slmtune-bin-") as name, Listener(f"{name}/socket") as listener:
        folder = Path(name)
        for program in MAINS:
            (folder / program).write_text(PROGRAM, "utf-8")
            (folder / program).chmod(0o755)
        threading.Thread(target=_answer, args=(listener,), daemon=True).start()
        try:
            yield folder
        finally:
            Client(listener.address).close()  # ends the thread


def _answer(listener: Listener) -> None:
    with suppress(EOFError):  # nothing was asked
        while True:
            with listener.accept() as connection:
                program, *words, cwd, environment = connection.recv()
                main = MAINS[os.path.basename(program)]
                done = _complete(Command(*words, cwd=Path(cwd), environment=environment, main=main))
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
    arguments: list[str],
    cwd: Path,
    environment: dict[str, str],
    output: Path,
    before: Callable[[], None] | None,
    main: Callable[[list[str]], None],
) -> None:
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(cwd)
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(output / name, os.O_WRONLY | os.O_CREAT), number)
    vars(sys)["stdout"].reconfigure(encoding=environment.get(ENCODING))  # without it, the server's
    assert LIBRARIES in sys.modules, "the server of forked commands could not import its libraries, and ignored that"
    sys.argv = ["slmtune", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    _read_settings()
    if before is not None:
        before()
    main(arguments)


def _slmtune(arguments: list[str]) -> None:
    from finetune.cli import main

    main()


def _call_python(executable: str) -> None:
    sys.executable = executable


def python_words(arguments: list[str]) -> None:
    """As the `main` of a command: what Python does with `-c PROGRAM`, `-m MODULE` or `SCRIPT`, and arguments."""
    kind, *rest = arguments
    sys.path[:0] = filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))
    if kind == "-c":
        sys.argv = [kind, *rest[1:]]
        sys.path.insert(0, "")
        exec(compile(rest[0], "<string>", "exec"), {"__name__": "__main__"})
    elif kind == "-m":
        sys.argv = rest
        runpy.run_module(rest[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(kind))
        runpy.run_path(kind, run_name="__main__")


MAINS = {"slmtune": _slmtune, "python": python_words}
