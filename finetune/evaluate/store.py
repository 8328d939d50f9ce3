"""The answers of an unfinished evaluation: kept next to the report until it is written, so that no answer is given twice.

Each contestant's answers to a task are a file of their own in the hidden folder `.OUTPUT_DIR.answers/`, which only its owner
can read, because answers may repeat private rows. The name of a file is a hash of whatever decides the answers in it.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields
from pathlib import Path
from typing import TypeVar

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from finetune import __version__
from finetune.artifacts import library_versions, remove_leftovers, write_aside
from finetune.errors import LostProcessError, MemoryFullError, StoppedError, TerminatedError
from finetune.evaluate.answers import Answers
from finetune.evaluate.request import EvalRequest
from finetune.lock import LOCK, lock_folder
from finetune.machine import device_name, is_out_of_memory
from finetune.recipe.option_fields import fields_of
from finetune.recipe.options import EvalOptions
from finetune.scoring.tasks import EvalTask

log = logging.getLogger(__name__)

T = TypeVar("T")

# Options that decide which rows are answered and by whom, which the key holds anyway, but not what the answers are.
FREE = frozenset(
    {
        *("split", "tasks", "accept_noncommercial", "allow_train_overlap", "limit", "batch_size", "workers"),
        *("few_shot", "vs", "vs_key_file", "gate", "forgetting", "report_to", "lm_eval", "lm_eval_chat_template"),
    }
)


@dataclass(frozen=True, config=ConfigDict(ser_json_inf_nan="constants"))
class Stored:
    """The contents of a file."""

    answers: Answers


STORED = TypeAdapter(Stored)


class AnswerStore:
    """The answers of one evaluation, by task and contestant. The owner of this object holds the lock of the folder."""

    def __init__(self, folder: Path, options: Mapping[str, object], parents: Sequence[str]) -> None:
        self.folder = folder
        self.common = {
            "slmtune": __version__,
            "libraries": library_versions(),
            "device": device_name(),
            "parents": list(parents),
            "options": {name: str(value) for name, value in options.items()},
        }
        self._paths: set[Path] = set()  # of this evaluation's answers, stored or not

    def read(self, task: EvalTask, name: str, identity: str) -> Answers | None:
        """The stored answers of a contestant to a task; None if there are none, or none that can be used."""
        stored = self.load(
            self._path(task, name, identity), STORED, name, task.name, lambda one: _fits(one.answers, task)
        )
        return None if stored is None else stored.answers

    def write(self, task: EvalTask, name: str, identity: str, answers: Answers) -> None:
        """Keep the answers of a contestant to a task."""
        self.save(self._path(task, name, identity), STORED, Stored(answers))

    def place(self, facts: Mapping[str, object]) -> Path:
        """The file of whatever these facts decide, besides those of the evaluation as a whole."""
        text = json.dumps({**self.common, **facts}, sort_keys=True)
        path = self.folder / f"{hashlib.sha256(text.encode()).hexdigest()}.json"
        self._paths.add(path)
        return path

    def load(
        self, path: Path, form: TypeAdapter[T], name: str, task: str, fits: Callable[[T], bool] = lambda _: True
    ) -> T | None:
        """What `save` wrote; None if there is nothing, or nothing that can be used."""
        if not path.is_file():
            return None
        try:
            checksum, _, text = path.read_bytes().partition(b"\n")
            value = form.validate_json(text)
            if checksum.decode() != hashlib.sha256(text).hexdigest() or not fits(value):
                raise ValueError
        except (OSError, ValueError, ValidationError):
            log.warning("The stored answers of %s to %s are damaged and are not used.", name, task)
            path.unlink(missing_ok=True)
            return None
        log.info("Taking over the answers of %s to %s from an unfinished evaluation.", name, task)
        return value

    def save(self, path: Path, form: TypeAdapter[T], value: T) -> None:
        """Write a file that holds a checksum and a value."""
        text = form.dump_json(value)
        with write_aside(path) as staging:
            staging.write_bytes(hashlib.sha256(text).hexdigest().encode() + b"\n" + text)

    @property
    def kept(self) -> int:
        """How many contestants' answers to a task are stored."""
        return sum(path.is_file() for path in self._paths)

    def _path(self, task: EvalTask, name: str, identity: str) -> Path:
        rows = [asdict(row) for row in task.examples]
        facts = {"task": task.name, "metric": task.metric, "rows": rows, "name": name, "identity": identity}
        return self.place(facts)


@contextmanager
def keep_answers(request: EvalRequest, parents: Sequence[str], pairs: int) -> Iterator[AnswerStore]:
    """Keep the answers of an evaluation if the block is interrupted, and remove them once it ends without an error.

    Args:
        parents: fingerprints of the artifacts that decide the answers of every contestant: of the adapter, which says how its
            base model is quantised, and of the corpus, which has the examples of a prompt.
        pairs: how many answers of a contestant to a task there will be.

    Raises:
        StoppedError: SIGINT or SIGTERM arrived.
        MemoryFullError: an allocation failed.
        LostProcessError: a worker has ended.
        OutputInUseError: another process is writing to the same folder.
    """
    out = Path(os.path.abspath(request.output_dir))
    folder = out.parent / f".{out.name}.answers"
    options = {name: getattr(request, name) for name in fields_of(EvalOptions) if name not in FREE}
    with lock_folder(folder, request.output_dir):
        remove_leftovers(out)
        store = AnswerStore(folder, options, parents)
        try:
            yield store
        except (KeyboardInterrupt, TerminatedError) as stop:
            number = signal.SIGINT if isinstance(stop, KeyboardInterrupt) else signal.SIGTERM
            raise StoppedError(
                number, f"Stopped by {number.name}. {_describe(store, pairs)} Continue with: {request.resume_command}"
            ) from None
        except LostProcessError as error:
            raise LostProcessError(
                f"{error}, possibly for lack of memory. {_describe(store, pairs)} Continue, with fewer --workers if need be, "
                f"with: {request.resume_command}"
            ) from None
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            smaller = f" --batch-size {request.batch_size // 2}" if request.batch_size > 1 else ""
            smaller = f" --workers {request.workers // 2}" if request.workers > 1 else smaller
            raise MemoryFullError(
                f"Memory is full. End other programs that use it. {_describe(store, pairs)} Continue with: "
                f"{request.resume_command}{smaller}"
            ) from None
        for path in folder.iterdir():
            if path.name != LOCK:
                path.unlink(missing_ok=True)


def _describe(store: AnswerStore, pairs: int) -> str:
    return f"The answers to {store.kept} of {pairs} tasks, counted for each model, are kept."


def _fits(answers: Answers, task: EvalTask) -> bool:
    """Whether there are answers to all rows, and other facts for all rows or for none."""
    lists = [getattr(answers, one.name) for one in fields(answers)]
    lengths = {len(each) for each in lists if isinstance(each, list)}
    return len(answers.texts) == len(task.examples) and lengths <= {0, len(task.examples)}
