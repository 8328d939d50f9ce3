"""The key of the canaries in a corpus: which random secrets were drawn, and which of them were planted.

The key lies outside the corpus and is never shared: whoever has it knows what an adapter may have memorised.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from finetune.errors import InputError
from finetune.records import Example, Message

CANARY_SOURCE = "slmtune-canaries"  # of planted rows, in the corpus
MARK = b'{"slmtune_canary_key": 1,'  # what the file begins with, so that it is recognised whatever its name is


@dataclass(frozen=True, slots=True)
class Canary:
    """A random secret that belongs to nobody, in an answer to a question that no other row asks.

    Of a text for continued pretraining (`is_text`), the question is the beginning. `repetitions` is how often the row occurs
    in the training split if it is `planted`; a held-out canary has the number that it would have had.
    """

    shape: str
    question: str
    answer: str
    secret: str
    repetitions: int
    planted: bool
    is_text: bool

    def to_row(self, name: str = "") -> Example:
        """The canary as a row of a corpus."""
        if self.is_text:
            return Example(
                name, (Message("assistant", f"{self.question} {self.answer}"),), "text", source=CANARY_SOURCE
            )
        turns = Message("user", self.question), Message("assistant", self.answer)
        return Example(name, turns, "qa", source=CANARY_SOURCE, license="cc0-1.0")


def key_beside(corpus: Path) -> Path:
    """Where the key of a corpus is, unless the user put it elsewhere: next to its folder."""
    folder = Path(os.path.abspath(corpus))
    return folder.with_name(f"{folder.name}-canaries.key")


def write_key(path: Path, canaries: Sequence[Canary]) -> str:
    """Write a new file that only its owner can read; returns its SHA-256, which does not tell the secrets.

    Raises:
        InputError: the file cannot be written.
    """
    rows = json.dumps([asdict(canary) for canary in canaries], ensure_ascii=False, indent=1)
    data = MARK + b' "canaries": ' + rows.encode() + b"}\n"
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InputError(
            f"The canary key cannot be written to {path.parent}: {error.strerror}. Choose another file with --canary-key"
        ) from None
    return hashlib.sha256(data).hexdigest()


def read_key(path: Path) -> tuple[list[Canary], str]:
    """The canaries in a key file, and the SHA-256 of the file.

    Raises:
        InputError: there is no such file, or it is not a key.
    """
    try:
        data = path.read_bytes()
        return [Canary(**each) for each in json.loads(data)["canaries"]], hashlib.sha256(data).hexdigest()
    except OSError as error:
        problem = error.strerror or type(error).__name__
    except (ValueError, KeyError, TypeError):
        problem = "it is not a key of canaries"
    raise InputError(
        f"The canary key {path} cannot be read: {problem}. Give the file that prepare --canaries wrote, with --canary-key"
    )


def is_key(path: Path) -> bool:
    """Whether a file is a key of canaries, whatever its name is."""
    try:
        with path.open("rb") as file:
            return file.read(len(MARK)) == MARK
    except OSError:
        return False


def find_keys(folder: Path) -> list[str]:
    """The keys in a folder and the folders in it, relative to it."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file() and is_key(path))
