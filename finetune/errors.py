"""The errors that slmtune reports, as classes; each carries the exit code of the command line.

    SlmtuneError                 1  something failed while running
    ├── PortInUseError           1  the address is in use
    ├── QueueFullError           1  the server's queue of waiting requests is full
    ├── EngineStoppedError       1  generation ended without an answer: the server is shutting down, or its worker died
    ├── HubError                 1  the Hub refused a request or could not be reached
    ├── TrainingDivergedError    1  the loss or a gradient is not finite
    ├── DiskFullError            1  the disk has no space for the output
    ├── StoppedError           130  a signal stopped the work in an orderly way; 143 if it was SIGTERM
    ├── InputError               2  an argument, file or setting cannot be used
    │   ├── ConfigError          2  all configuration problems at once
    │   ├── UnplannedModelError  2  memory use is unknown for this model family
    │   ├── UnknownNameError     2  a domain, model or key that does not exist; suggests the closest one
    │   ├── RecordError          2  a row of a source cannot be used; names file and line
    │   ├── MissingStageError    2  an earlier stage has not run; names the command
    │   ├── OutputExistsError    2  the output already exists
    │   ├── OutputInUseError     2  another process is writing the output
    │   ├── ArtifactError        2  a folder is damaged or is not an artifact
    │   ├── BaseModelError       2  an adapter does not belong to the base model
    │   ├── ContextLengthError   2  prompt and answer do not fit in the model's context
    │   └── OfflineError         2  a file is not cached, and the Hub may not be used or cannot be reached
    └── CheckFailedError         3  a check failed

    Unusable                        a row or document that `prepare` counts or reports as a RecordError; internal

A message is one paragraph: what went wrong, where, and how to fix it. It never contains the text of a row.
"""

from __future__ import annotations

import difflib
import signal
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

EXIT_FAILURE, EXIT_INPUT, EXIT_CHECK = 1, 2, 3


class SlmtuneError(Exception):
    """Base class of the errors that slmtune reports."""

    exit_code = EXIT_FAILURE

    def __reduce__(self) -> tuple[Any, ...]:
        """Let errors return unchanged from worker processes, whatever their constructors take."""
        return _rebuild, (type(self), str(self), self.__dict__)


def _rebuild(kind: type[SlmtuneError], message: str, state: dict[str, Any]) -> SlmtuneError:
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class PortInUseError(SlmtuneError):
    """The address of the server is in use."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} on {host} is in use. Stop the program that uses it, or let slmtune choose a free port: --port 0"
        )


class QueueFullError(SlmtuneError):
    """The server's queue of waiting requests is full."""

    def __init__(self, waiting: int) -> None:
        super().__init__(f"The queue is full: {waiting} requests are waiting. Try again later")


class EngineStoppedError(SlmtuneError):
    """Generation ended without an answer: the server is shutting down, or its worker died."""


class HubError(SlmtuneError):
    """The Hub refused a request or did not answer."""


class TrainingDivergedError(SlmtuneError):
    """The loss or a gradient became NaN or infinite."""


class DiskFullError(SlmtuneError):
    """The disk has no space for the output."""


class StoppedError(SlmtuneError):
    """A signal stopped the work, and its results so far are kept. The exit code is 128 + the signal, as in shells."""

    exit_code = 128 + signal.SIGINT

    def __init__(self, number: int, message: str) -> None:
        self.exit_code = 128 + number
        super().__init__(message)


class InputError(SlmtuneError):
    """An argument, file or setting cannot be used."""

    exit_code = EXIT_INPUT


class ConfigError(InputError):
    """All configuration problems, reported together."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{source}: " + "; ".join(problems))


class UnplannedModelError(InputError):
    """A model of a family whose memory use cannot be planned from its configuration."""


class UnknownNameError(InputError):
    """A name that does not exist; the message suggests the closest one that does."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        message = f"There is no {kind} {name!r}. {did_you_mean(name, known)}"
        super().__init__(" ".join(part for part in (message.strip(), hint) if part))


class RecordError(InputError):
    """A row that cannot be used; `where` is `file:line`, and the message never repeats the text of the row."""

    def __init__(self, where: str, problem: str) -> None:
        self.where = where
        super().__init__(f"{where}: {problem}")


class MissingStageError(InputError):
    """An earlier stage has not run: names the artifact and the command that makes it."""

    def __init__(self, artifact: str, path: Path, command: str) -> None:
        super().__init__(f"There is no {artifact} at {path}. Make it with: {command}")


class OutputExistsError(InputError):
    """The output folder already exists and may not be replaced."""

    def __init__(self, path: Path) -> None:
        super().__init__(f"{path} already exists. Choose another --output-dir, or replace it with --overwrite")


class OutputInUseError(InputError):
    """Another process is writing to the output; the message names its id if it is known."""

    def __init__(self, path: Path, process: str) -> None:
        super().__init__(
            f"Another slmtune{f' (process {process})' if process else ''} is training into {path}. Wait for it, or choose "
            "another --output-dir"
        )


class ArtifactError(InputError):
    """A folder is not a complete artifact of the expected kind."""


class BaseModelError(InputError):
    """An adapter was trained on a base model other than the one given."""


class ContextLengthError(InputError):
    """Prompt and answer do not fit in the model's context; all three lengths are in tokens."""

    def __init__(self, prompt: int, answer: int, context: int) -> None:
        super().__init__(
            f"The prompt has {prompt} tokens and the answer may have up to {answer} tokens, but the context holds {context}. "
            "Shorten the prompt or lower max_tokens"
        )


class OfflineError(InputError):
    """A file of the Hub is needed but is neither cached nor downloadable."""


class CheckFailedError(SlmtuneError):
    """A verification ran and failed."""

    exit_code = EXIT_CHECK


class Unusable(Exception):
    """A row or document that cannot be used; `reason` is the key it is counted under. Never contains the row's text."""

    def __init__(self, reason: str, problem: str) -> None:
        self.reason = reason
        super().__init__(reason, problem)  # both, so that the error survives the way back from a worker process

    def __str__(self) -> str:
        return str(self.args[1])


class EvaluationStoppedError(Exception):
    """A signal arrived during an evaluation between two steps; never leaves finetune.train."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the closest of `known`, or lists them all if none is close; empty if none is known."""
    known = list(known)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
