"""What can go wrong, as classes; each carries the exit code that the command line ends with.

    SlmtuneError                 1  something failed while running
    ├── PortInUseError           1  the address is taken
    ├── QueueFullError           1  the server has as many requests waiting as it keeps
    ├── EngineStoppedError       1  generation ended before its answer: shutting down, or the worker died
    ├── HubError                 1  the Hub refused or could not be reached
    ├── TrainingDivergedError    1  the loss or a gradient is not finite
    ├── DiskFullError            1  there is no room for what must be written
    ├── StoppedError           130  a signal ended the work in order; 143 where it was SIGTERM
    ├── InputError               2  what the user gave cannot be used
    │   ├── ConfigError          2  every configuration problem at once
    │   ├── UnplannedModelError  2  the memory of this family of models cannot be told
    │   ├── UnknownNameError     2  a domain, model or key that does not exist; suggests the nearest
    │   ├── RecordError          2  a row of a source cannot be used; names file and line
    │   ├── MissingStageError    2  an earlier stage has not run; names the command
    │   ├── OutputExistsError    2  the output is there already
    │   ├── OutputInUseError     2  another process is writing there
    │   ├── ArtifactError        2  an artifact is damaged or is not one
    │   ├── BaseModelError       2  an adapter and a base model do not belong together
    │   ├── ContextLengthError   2  prompt and answer do not fit the model's context
    │   └── OfflineError         2  a file is not cached and the Hub may not or cannot be asked
    └── CheckFailedError         3  a verification said no

    Unusable                        a row or a document that `prepare` counts or reports as a RecordError: no user meets it

Messages are one paragraph: what, where, what to do. They never contain the text of a row.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

EXIT_FAILURE, EXIT_INPUT, EXIT_CHECK = 1, 2, 3


class SlmtuneError(Exception):
    """Anything that slmtune itself reports."""

    exit_code = EXIT_FAILURE

    def __reduce__(self) -> tuple[Any, ...]:
        """Errors travel from worker processes as they are, whatever their constructors take."""
        return _rebuild, (type(self), str(self), self.__dict__)


def _rebuild(kind: type[SlmtuneError], message: str, state: dict[str, Any]) -> SlmtuneError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class PortInUseError(SlmtuneError):
    """The server cannot have its address."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} on {host} is in use. Stop the program that holds it, or choose another: --port 0"
        )


class QueueFullError(SlmtuneError):
    """The server has as many requests waiting as it keeps."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"{waiting} requests are waiting already. Try again later")


class EngineStoppedError(SlmtuneError):
    """Generation ended before its answer: the server shuts down, or its worker died."""


class HubError(SlmtuneError):
    """The Hub refused a request, or no answer came."""


class TrainingDivergedError(SlmtuneError):
    """The loss or a gradient became NaN or infinite."""


class DiskFullError(SlmtuneError):
    """There is no room for what must be written."""


class StoppedError(SlmtuneError):
    """A signal ended the work in order: what was done is kept. The exit code is 128 + the signal, as shells have it."""

    exit_code = 128 + signal.SIGINT

    def __init__(self, number: int, message: str) -> None:
        self.exit_code = 128 + number
        super().__init__(message)


class InputError(SlmtuneError):
    """What the user gave cannot be used."""

    exit_code = EXIT_INPUT


class ConfigError(InputError):
    """All configuration problems, reported together."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{source}: " + "; ".join(problems))


class UnplannedModelError(InputError):
    """A model of a family whose memory cannot be told from its configuration."""


class UnknownNameError(InputError):
    """A name that does not exist; the nearest existing one is suggested."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        message = f"There is no {kind} {name!r}. {did_you_mean(name, known)}"
        super().__init__(" ".join(part for part in (message.strip(), hint) if part))


class RecordError(InputError):
    """A row that cannot be used; `where` is `file:line` and the text of the row is never repeated."""

    def __init__(self, where: str, problem: str) -> None:
        self.where = where
        super().__init__(f"{where}: {problem}")


class MissingStageError(InputError):
    """An earlier stage has not run: names the artifact and the command that makes it."""

    def __init__(self, artifact: str, path: Path, command: str) -> None:
        super().__init__(f"There is no {artifact} at {path}. Make it with: {command}")


class OutputExistsError(InputError):
    """The output folder is there already and may not be replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} exists already. Choose another --output-dir, or replace it with --overwrite")


class OutputInUseError(InputError):
    """Another process is writing to the output; named by its id where that is known."""

    def __init__(self, path: Path, process: str) -> None:
        super().__init__(
            f"Another slmtune{f' (process {process})' if process else ''} is training into {path}. Wait for it, or choose "
            "another --output-dir"
        )


class ArtifactError(InputError):
    """A folder is not a complete artifact of the wanted kind."""


class BaseModelError(InputError):
    """An adapter belongs to another base model than the one given."""


class ContextLengthError(InputError):
    """Prompt and answer do not fit the model's context; all three are counted in tokens."""

    def __init__(self, prompt: int, answer: int, context: int) -> None:
        super().__init__(
            f"The prompt has {prompt} tokens and up to {answer} are asked for, but the model's context holds {context}. "
            "Shorten the prompt or lower max_tokens"
        )


class OfflineError(InputError):
    """A Hub file is needed, is not in the cache, and cannot be fetched."""


class CheckFailedError(SlmtuneError):
    """A verification ran and its answer is no."""

    exit_code = EXIT_CHECK


class Unusable(Exception):
    """A row or a document that cannot be used; `reason` is the word that counts are kept under. Never holds the row's text."""

    def __init__(self, reason: str, problem: str) -> None:
        self.reason = reason
        super().__init__(reason, problem)  # both, so that it can come back from a worker process

    def __str__(self) -> str:
        return str(self.args[1])


class EvaluationStoppedError(Exception):
    """A signal came during an evaluation between two steps; never leaves finetune.train."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the nearest of `known`, or lists them all where none is near; empty if none is known."""
    known = list(known)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
