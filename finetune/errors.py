"""The errors that slmtune reports, as classes; each carries the exit code of the command line.

    SlmtuneError                 1  something failed while running
    ├── PortInUseError           1  the address is in use
    ├── QueueFullError           1  the server's queue of waiting requests is full
    ├── DeadlineError            1  an answer was not complete within its time limit
    ├── EngineStoppedError       1  generation ended without an answer: the server is shutting down, or its worker died
    ├── ClusterError             1  a Ray cluster cannot be reached, its nodes differ, or its workers died
    ├── HubError                 1  the Hub refused a request or could not be reached
    ├── StorageError             1  a bucket refused a corpus or could not be reached
    ├── TrainingDivergedError    1  the loss or a gradient is not finite
    ├── DiskFullError            1  the disk has no space for the output
    ├── MemoryFullError          1  memory is full, in training even with one row per forward pass
    ├── LostProcessError         1  one of several processes that work together has ended
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
    │   ├── AdapterMemoryError   2  an adapter does not fit in its part of --max-memory
    │   ├── ContextLengthError   2  prompt and answer do not fit in the model's context
    │   └── OfflineError         2  a file is not cached, and the Hub may not be used or cannot be reached
    └── CheckFailedError         3  a check failed

    Unusable                        a row or document that `prepare` counts or reports as a RecordError; internal

A message is one paragraph: what went wrong, where, and how to fix it. It never contains the text of a row.

The docstring of each class says what went wrong, then how to fix it; docs/errors.md is generated from these.
"""

from __future__ import annotations

import difflib
import signal
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

EXIT_FAILURE, EXIT_INPUT, EXIT_CHECK = 1, 2, 3


class SlmtuneError(Exception):
    """A failure for which slmtune has no more specific class.

    The message says what failed and what to try. If a worker process of `prepare` died, for example, try `--workers 1`.
    """

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
    """The address of the server is in use.

    Stop the program that uses the port, or choose another: `--port 8001`, or `--port 0` for any free one.
    """

    def __init__(self, host: str, port: int) -> None:
        super().__init__(
            f"Port {port} on {host} is in use. Stop the program that uses it, or let slmtune choose a free port: --port 0"
        )


class QueueFullError(SlmtuneError):
    """The server's queue of waiting requests is full.

    Clients see status 429. Send the request again later, or send fewer requests at once.
    """

    def __init__(self, waiting: int) -> None:
        super().__init__(f"The queue is full: {waiting} requests are waiting. Try again later")


class DeadlineError(SlmtuneError):
    """An answer was not complete within the time that its request, or the server, allows.

    Clients see status 504. Ask for fewer tokens (`max_tokens`), or send the request again when the server has less to do.
    """

    def __init__(self) -> None:
        super().__init__(
            "The answer was not complete within the time limit. Lower max_tokens, or send the request again later"
        )


class EngineStoppedError(SlmtuneError):
    """Generation ended without an answer: the server is shutting down, or its worker died.

    Send the request again later. If the worker died, restart the server; its log says why.
    """


class HubError(SlmtuneError):
    """The Hub refused a request or did not answer.

    If it refused: log in with `hf auth login`, accept the licence of a gated model on its page, or use a token with write
    access for a push. If it did not answer: check the connection and `HF_ENDPOINT`, and try again later. A push makes one
    commit or none, so it is safe to repeat.
    """


class StorageError(SlmtuneError):
    """A bucket refused a corpus, or could not be reached.

    Check that the bucket exists, that your credentials are in the environment, and that they allow you to list, write and
    remove objects there. What was uploaded cannot be opened yet: run the command again, which continues.
    """


class ClusterError(SlmtuneError):
    """A Ray cluster cannot be used, or a worker of it died again and again.

    Run the command on a node of the cluster, with the same versions of slmtune, Python and libraries on all nodes, and with
    sources and corpus on storage that all nodes mount at the same path. When workers died, the shards so far are kept: run
    the command again, if need be with more memory per node.
    """


class TrainingDivergedError(SlmtuneError):
    """The loss or a gradient became NaN or infinite.

    No adapter was written. Train again with a tenth of the `--learning-rate` or a higher `--warmup-ratio`. If the message
    names rows, check what they contain.
    """


class DiskFullError(SlmtuneError):
    """The disk has no space for the output.

    The last checkpoint is kept. Free some space, or raise the limit on file sizes (`ulimit -f`), then continue with
    `slmtune train --resume`.
    """


class MemoryFullError(SlmtuneError):
    """Memory is full, in training even with one row per forward pass.

    End other programs that use the memory, then continue. In training, the last checkpoint is kept: continue with
    `slmtune train --resume`, to which `--gradient-checkpointing` may be added. If there is no checkpoint yet, a smaller
    `--max-length` or a smaller base model helps too; `slmtune plan` says what fits. In an evaluation, the answers so far are
    kept: run it again with a smaller `--batch-size`.
    """


class LostProcessError(SlmtuneError):
    """One of the processes of a training, a sweep or an evaluation has ended: it was killed, or does not answer.

    The other processes have stopped, and the last checkpoint or the answers so far are kept: continue with the command in
    the message, with as many processes as you like. If memory was full, take fewer, or smaller batches.
    """


class StoppedError(SlmtuneError):
    """A signal stopped the work, and its results so far are kept.

    The exit code is 130 after Ctrl-C (SIGINT) and 143 after SIGTERM. The message gives the command that continues: for a
    training, the same command with `--resume`; for an evaluation, the same command.
    """

    exit_code = 128 + signal.SIGINT

    def __init__(self, number: int, message: str) -> None:
        self.exit_code = 128 + number  # as in shells
        super().__init__(message)


class InputError(SlmtuneError):
    """An argument, file or setting cannot be used.

    The message says which one, where it is, and what to use instead. Nothing was written. If a model does not fit into
    memory, `slmtune plan` says what does.
    """

    exit_code = EXIT_INPUT


class ConfigError(InputError):
    """Some settings cannot be used.

    All problems are listed at once, each with the closest key that exists or the values that are allowed. Correct the flags,
    the file given with `--config`, or the recipe. The [command reference](commands.md) lists every flag.
    """

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__(f"{source}: " + "; ".join(problems))


class UnplannedModelError(InputError):
    """The memory use of this model family cannot be planned from its configuration.

    `slmtune plan` knows the families that the message lists. `slmtune train` trains other families without a plan.
    """


class UnknownNameError(InputError):
    """There is no domain, model, task or repository of this name.

    The message suggests the closest name that exists, or lists all of them; so do `slmtune domains` and `slmtune models`. A
    repository on the Hub may be private: log in with `hf auth login`.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        known = sorted(known)
        message = f"There is no {kind} {name!r}. {did_you_mean(name, known)}"
        super().__init__(" ".join(part for part in (message.strip(), hint) if part))


class RecordError(InputError):
    """A row of a source cannot be used.

    The message gives its file and line, and never repeats its text. Correct the row, or leave such rows out and have them
    counted with `--on-error skip`. If the columns have unusual names, say what they are with `--map NAME=COLUMN`.
    """

    def __init__(self, where: str, problem: str) -> None:  # where: file:line
        self.where = where
        super().__init__(f"{where}: {problem}")


class MissingStageError(InputError):
    """An earlier stage has not been run.

    Run the command in the message: `prepare` makes the corpus, `train` the adapter and `merge` the merged model. Give every
    stage the same `--domain` and `--run-dir`, so that it finds what the one before it made.
    """

    def __init__(self, artifact: str, path: Path | str, command: str) -> None:
        super().__init__(f"There is no {artifact} at {path}. Make it with: {command}")


class OutputExistsError(InputError):
    """The output folder already exists.

    Replace it with `--overwrite`, or choose another one with `--output-dir`. A folder that slmtune did not make is never
    replaced.
    """

    def __init__(self, path: Path | str) -> None:
        super().__init__(f"{path} already exists. Choose another --output-dir, or replace it with --overwrite")


class OutputInUseError(InputError):
    """Another process is writing to this folder.

    Wait for it, or choose another `--output-dir`. A process that was killed does not block the folder.
    """

    def __init__(self, path: Path, process: str) -> None:
        super().__init__(
            f"Another slmtune{f' (process {process})' if process else ''} is writing to {path}. Wait for it, or choose "
            "another --output-dir"
        )


class ArtifactError(InputError):
    """A folder is not a complete artifact of the expected kind.

    If it is damaged (a file is missing or has changed since it was written), make or pull it again. If it is of another
    kind, give the folder that the message asks for, such as `runs/finance/adapter`.
    """


class BaseModelError(InputError):
    """An adapter was trained on a base model other than the one given.

    An adapter works only with the exact weights that it was trained on. Give these with `--model`, or train again.
    """


class AdapterMemoryError(InputError):
    """An adapter does not fit in the part of `--max-memory` that is for adapters, beside those of running requests.

    Try again when these have been answered, or raise `--max-memory`.
    """

    def __init__(self, size: int, used: int, room: int) -> None:
        needed, taken, whole = (f"{count / 2**20:.1f} MiB" for count in (size, used, room))
        super().__init__(
            f"The adapter takes {needed}, but --max-memory leaves {whole} for adapters, of which those in use take {taken}. "
            + ("Try again when they have been answered" if size <= room else "Raise --max-memory")
        )


class ContextLengthError(InputError):
    """Prompt and answer do not fit in the model's context, or a text is longer than an encoder can read.

    Shorten the prompt, or ask for fewer tokens (`max_tokens`). Classify the parts of a long text one by one.
    """

    def __init__(self, prompt: int, answer: int, context: int) -> None:
        super().__init__(
            f"The text has {prompt} tokens, but the model reads at most {context}. Shorten it, or send its parts"
            if not answer
            else f"The prompt has {prompt} tokens and the answer may have up to {answer} tokens, but the context is limited to "
            f"{context}. Shorten the prompt or lower max_tokens"
        )


class OfflineError(InputError):
    """A file is neither on this machine nor downloadable.

    Run the command once with a connection, without `--offline` and `HF_HUB_OFFLINE`, or give `--model` a local folder.
    """


class CheckFailedError(SlmtuneError):
    """A verification ran and failed.

    Only an evaluation that misses a condition of `--gate` leaves its report; all others have written and sent nothing.

    If a merged model differs from its adapter, serve the adapter itself, or train with
    `--quantization none` and merge that. If an adapter changes nothing, train again as the message says. If a push would
    disclose something, remove what the message names, or make the artifact again without it.
    """

    exit_code = EXIT_CHECK


class Unusable(Exception):
    """A row or document that cannot be used; `reason` is the key it is counted under. Never contains the row's text."""

    def __init__(self, reason: str, problem: str) -> None:
        self.reason = reason
        super().__init__(reason, problem)  # both, so that a worker process can send the error back

    def __str__(self) -> str:
        return str(self.args[1])


class TerminatedError(BaseException):
    """SIGTERM arrived: unwind the stack so that nothing is left half-written; never leaves finetune.cli."""


class EvaluationStoppedError(Exception):
    """A signal arrived during an evaluation between two steps; never leaves finetune.train."""


class PrunedError(Exception):
    """A sweep ends a run that falls behind the others; never leaves finetune.sweep."""


def where_raised(error: Exception) -> str:
    """The type of an error that slmtune did not foresee, and its file and line; not its text, which may be private."""
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__} in {Path(frame.filename).name}:{frame.lineno}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the closest of `known`, or lists them all if none is close; empty if none is known."""
    known = list(known)
    if not known:
        return ""
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"Did you mean {near[0]!r}?" if near else f"Known: {', '.join(known)}."
