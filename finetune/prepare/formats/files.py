"""Files of rows: JSON Lines, JSON, CSV, TSV, Parquet, Arrow and Excel, each row with its line so that errors can name it.

A file is read in blocks, small enough that many fit in memory. A block of JSON Lines stays bytes, so that a worker
process can parse it; other formats are parsed here.
"""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from finetune.errors import InputError
from finetune.prepare.formats.containers import inner_name, open_member
from finetune.prepare.formats.encoding import detect_encoding
from finetune.records import Split, UnusedKind

BLOCK_BYTES = 2**20  # large enough to be cheap to send to a process, small enough to keep a dozen in memory
BLOCK_ROWS = 1000
MAX_LINE = 64 * 2**20  # bytes of a row: a gigabyte without a line break is another format, not a row
BINARY = frozenset({".parquet", ".arrow", ".feather", ".xlsx"})
UTF8 = frozenset({"ascii", "utf-8", "utf-8-sig"})


@dataclass(frozen=True, slots=True)
class Row:
    """A row and its line, counted from 1 (or its number in Parquet, Arrow and wrapped JSON, which have no lines)."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why; `reason` is the key it is counted under."""

    line: int
    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class Lines:
    """Whole lines of JSON Lines as UTF-8; `first` is the number of the first line."""

    first: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Unread:
    """What a file has and its rows lack: how often, and the name for the count (see `records.Unused`)."""

    kind: UnusedKind
    name: str
    count: int = 1


Rows = tuple[Row | BadRow | Unread, ...]


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a source: its path, its name within the source, its name in messages, and the split that its name implies.

    `member` is its name inside the archive at `path`; `encoding` is that of its text, None: to be detected.
    """

    path: Path
    name: str
    shown: str
    split: Split | None = None
    member: str | None = None
    encoding: str | None = None

    @property
    def suffix(self) -> str:
        """The extension that determines the format, without that of a compression."""
        return suffix_of(inner_name(self.path, self.member))


class Text:
    """A stream of UTF-8 bytes, whatever the file's encoding; `encoding` is the given or the detected one."""

    def __init__(self, file: DataFile, raw: BinaryIO) -> None:
        self._raw = raw
        self._head = raw.read(BLOCK_BYTES)
        self.encoding = file.encoding or _encoding(self._head, file.shown)
        self._decoder = None if self.encoding in UTF8 else codecs.getincrementaldecoder(self.encoding)(errors="replace")
        if self._head.startswith(codecs.BOM_UTF8):
            self._head = self._head[3:]

    def read(self) -> bytes:
        """The next bytes; empty at the end."""
        data, self._head = self._head or self._raw.read(BLOCK_BYTES), b""
        if self._decoder is None:
            return data
        return self._decoder.decode(data, final=not data).lstrip("\ufeff").encode("utf-8", "replace")


def _encoding(head: bytes, shown: str) -> str:
    """The encoding of a file of rows: UTF-8 with some broken rows is not mistaken for a legacy code page."""
    encoding = detect_encoding(head, shown)
    if encoding not in UTF8 and not encoding.startswith(("utf-16", "utf-32")):
        lines = [line for line in head.split(b"\n") if not line.isascii()]
        if sum(_is_utf8(line) for line in lines) * 2 >= len(lines):
            return "utf-8"
    return encoding


def _is_utf8(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def check_content(head: bytes, shown: str) -> None:
    """Refuse what Git LFS leaves in the place of a file.

    Raises:
        InputError: the file begins like such a pointer.
    """
    if head.startswith(b"version https://git-lfs.github.com/spec/"):
        raise InputError(f"{shown} is a Git LFS pointer, not the file itself. Fetch the file with: git lfs pull")


def encoding_of(file: DataFile) -> str | None:
    """The encoding of a file of rows that is text; None for UTF-8, in which most are."""
    if file.suffix in BINARY:
        return None
    with open_file(file) as raw:
        name = Text(file, raw).encoding
    return None if name in UTF8 else name


def suffix_of(name: str) -> str:
    """The extension of a file name in lower case, with the dot."""
    return PurePosixPath(name).suffix.lower()


@contextmanager
def open_file(file: DataFile) -> Iterator[BinaryIO]:
    """The file's bytes, decompressed.

    Raises:
        InputError: it is empty, or cannot be read.
    """
    try:
        with open_member(file.path, file.member) as raw:
            yield raw
    except OSError as error:
        raise InputError(
            f"{file.shown} cannot be read ({error.strerror or error}). Check the path and its permissions"
        ) from None


def in_blocks(rows: Iterable[Row | BadRow | Unread]) -> Iterator[Rows]:
    """The rows in blocks; those before an error that ends the file are not lost."""
    block: list[Row | BadRow | Unread] = []
    try:
        for row in rows:
            block.append(row)
            if len(block) == BLOCK_ROWS:
                yield tuple(block)
                block = []
    except InputError:
        yield tuple(block)
        raise
    if block:
        yield tuple(block)


def not_utf8(data: bytes = b"") -> str:
    """The message about bytes that are not UTF-8."""
    guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "CP1252"
    return f"not valid UTF-8. Convert the file, for example with: iconv -f {guess} -t UTF-8"


def too_long(line: int) -> BadRow:
    """The `BadRow` for a row that is too long to read."""
    size = f"{MAX_LINE // 2**20} MiB"
    return BadRow(line, "too_long", f"the row is longer than {size}. Write one row per line, or split the document")
