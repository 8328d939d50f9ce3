"""Reads the bytes of a file on disk, compressed or not: .gz, .zst and .zip are read as streams, within limits.

A mailbox (.mbox) is read like an archive of its messages.

Nothing is ever unpacked to disk; an archive that tries to write elsewhere is refused nevertheless, because its other
contents cannot be trusted either. For zstd, backports.zstd (in the standard library from Python 3.14) is used: it raises
EOFError for a truncated file, where the package zstandard silently ends the stream.
"""

from __future__ import annotations

import gzip
import io
import os
import re
import stat
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, BinaryIO, cast

from finetune.errors import InputError

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

MAX_UNPACKED = 256 * 2**30  # bytes out of one file: more than a shard of any public corpus
MAX_RATIO = 250  # unpacked to packed: text is 3 to 20, logs up to about 100, deflate can reach 1,032
RATIO_FREE = 64 * 2**20  # bytes that are harmless at any ratio: a small file of blanks is not a bomb
MAX_MEMBERS = 100_000  # of one archive: its table of contents is held in memory, about 1 KiB per member
MAX_MAIL_LINE = 2**16  # bytes that are looked at together: 998 is the limit of RFC 5322
MAX_NAME = 1024  # characters of a member's name

MAILBOX = ".mbox"
COMPRESSIONS = (".gz", ".zst")
ARCHIVES = frozenset((".zip", ".tar", ".tgz", ".tbz2", ".txz", ".7z", ".rar", ".jar", ".cab", ".iso"))
JUNK_FOLDERS = frozenset(("__macosx",))
JUNK_NAMES = frozenset((".ds_store", "thumbs.db", "desktop.ini"))

QUOTED_FROM = re.compile(rb"^>(>*From )", re.M)  # how mailboxes write a line that looks like the start of a message

ZIP_ENCRYPTED = 0x1  # bit 0 of the general purpose flags, APPNOTE 4.4.4


def members(path: Path) -> tuple[str | None, ...]:
    """The names of the files in an archive, in order; `(None,)` for a file that is not an archive.

    Raises:
        InputError: the path is not a readable file, or the archive is damaged, malicious, encrypted or too large.
    """
    with _open_file(path) as raw:
        if path.suffix.lower() == MAILBOX:
            messages = 1  # of a file that is no mailbox: opening it says why, and --on-error decides
            with suppress(InputError):
                messages = len(_messages(path, os.fstat(raw.fileno()).st_mtime_ns))
            return tuple(f"{number:06d}.eml" for number in range(1, messages + 1))
        if path.suffix.lower() != ".zip":
            return (None,)
        with _name_damage(str(path)), zipfile.ZipFile(raw) as archive:
            entries = _entries(archive)
            _check_archive(path, entries, os.fstat(raw.fileno()).st_size)
    return tuple(sorted(entry.filename for entry in entries if not entry.is_dir() and not is_junk(entry.filename)))


@contextmanager
def open_member(path: Path, member: str | None) -> Iterator[BinaryIO]:
    """A decompressed stream of a file or of a member of an archive. Plain files are seekable.

    Reading raises InputError if the compressed data is damaged, truncated or a decompression bomb.

    Raises:
        InputError: the path is not a readable file, or there is no such member.
    """
    shown = str(path) if member is None else f"{path}/{member}"
    with _open_file(path) as raw:
        if member is None:
            yield _unpack(raw, path.name, shown, raw.tell)
            return
        if path.suffix.lower() == MAILBOX:
            start, end = _messages(path, os.fstat(raw.fileno()).st_mtime_ns)[int(member.partition(".")[0]) - 1]
            raw.seek(start)
            yield io.BytesIO(QUOTED_FROM.sub(rb"\1", raw.read(end - start)))
            return
        with _name_damage(shown), zipfile.ZipFile(raw) as archive:
            entry = next((each for each in _entries(archive) if each.filename == member), None)
            if entry is None:
                raise InputError(f"{path} has no member {member}. List its members with: unzip -l")
            _check_entry(path, entry)
            inside = _UnpackedStream(archive.open(entry), shown, lambda: entry.compress_size)
        with inside:  # the stream reports damage itself, so errors of its reader pass unchanged
            yield _unpack(cast(BinaryIO, io.BufferedReader(inside)), member, shown, lambda: entry.compress_size)


@lru_cache(maxsize=4)
def _messages(path: Path, changed: int) -> tuple[tuple[int, int], ...]:
    """The first byte of each message of a mailbox that was last `changed` then, and the byte behind it."""
    starts: list[int] = []
    ends: list[int] = []
    place, blank = 0, True
    with path.open("rb") as raw:
        while line := raw.readline(MAX_MAIL_LINE):
            if blank and line.startswith(b"From "):
                ends.append(place)
                starts.append(place + len(line))
            place += len(line)
            blank = not line.strip()
    if not starts or ends[0] > 0:
        raise InputError(f"{path} is not a mailbox: its first line is not that of a message. Export it again as mbox")
    if len(starts) > MAX_MEMBERS:
        raise InputError(f"{path} has {len(starts):,} messages, more than {MAX_MEMBERS:,}. Split it")
    return tuple(zip(starts, [*ends[1:], place], strict=True))


def _entries(archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    """The members of an archive, with slashes in their names: Windows PowerShell 5 writes backslashes."""
    for entry in archive.infolist():
        entry.filename = entry.filename.replace("\\", "/")
    return archive.infolist()


def inner_name(path: Path, member: str | None) -> str:
    """The name that determines the format: that of the member or the file, without the extension of a compression."""
    name = path.name if member is None else member
    stem, dot, ending = name.rpartition(".")
    return stem if stem and f"{dot}{ending.lower()}" in COMPRESSIONS else name


@contextmanager
def _open_file(path: Path) -> Iterator[BinaryIO]:
    """Open a regular file; a FIFO does not block and cannot replace the file between check and opening."""
    try:
        number = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        reason = error.strerror or type(error).__name__
        raise InputError(f"{path} cannot be read ({reason}). Check the path and its permissions") from None
    mode = os.fstat(number).st_mode
    if not stat.S_ISREG(mode):
        os.close(number)
        if stat.S_ISDIR(mode):
            raise InputError(f"{path} is a folder, not a file. Pass it as a separate source, or name a file in it")
        kind = "a pipe" if stat.S_ISFIFO(mode) else "a device or a socket"
        raise InputError(f"{path} is {kind}, not a regular file. Save its output as a file first")
    with os.fdopen(number, "rb") as raw:
        yield raw


def _unpack(raw: BinaryIO, name: str, shown: str, packed: Callable[[], int]) -> BinaryIO:
    """The stream itself, or a decompressing one if the name says that it is compressed."""
    ending = PurePosixPath(name).suffix.lower()
    if ending == ".gz":
        unpacker = cast(IO[bytes], gzip.GzipFile(fileobj=raw, mode="rb"))
    elif ending == ".zst":
        unpacker = cast(IO[bytes], zstd.ZstdFile(raw, mode="rb"))
    else:
        return raw
    return cast(BinaryIO, io.BufferedReader(_UnpackedStream(unpacker, shown, packed), 2**17))


class _UnpackedStream(io.RawIOBase):
    """A decompressed stream that compares its output with `packed()`, the number of compressed bytes read."""

    def __init__(self, source: IO[bytes], shown: str, packed: Callable[[], int]) -> None:
        self._source, self._shown, self._packed, self._count = source, shown, packed, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        with _name_damage(self._shown):
            data: bytes = self._source.read(len(buffer))
        self._count += len(data)
        _check_size(self._shown, self._count, self._packed())
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._source.close()
        super().close()


@contextmanager
def _name_damage(shown: str) -> Iterator[None]:
    """Turn the errors of decompressors into one that names the file."""
    try:
        yield
    except EOFError:
        raise InputError(f"{shown} is truncated: the compressed data ends too early. Copy it again") from None
    except NotImplementedError:
        raise InputError(f"{shown} is compressed with an unsupported method. Compress it again with deflate") from None
    except (OSError, zipfile.BadZipFile, zlib.error, zstd.ZstdError, ValueError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise  # the disk, not the data
        raise InputError(f"{shown} is damaged, or its extension is wrong. Copy or compress it again") from None


def _check_size(shown: str, unpacked: int, packed: int) -> None:
    if unpacked > MAX_UNPACKED:
        raise InputError(f"{shown} unpacks to more than {MAX_UNPACKED // 2**30} GiB. Split it into smaller files")
    if unpacked > RATIO_FREE and unpacked > MAX_RATIO * max(packed, 1):
        raise InputError(
            f"{shown} unpacks to more than {MAX_RATIO} times its size, like a decompression bomb. If you trust it, "
            "unpack it yourself and pass the folder"
        )


def _check_archive(path: Path, entries: Sequence[zipfile.ZipInfo], size: int) -> None:
    if len(entries) > MAX_MEMBERS:
        raise InputError(
            f"{path} has {len(entries):,} members, more than {MAX_MEMBERS:,}. Unpack it and pass the folder"
        )
    seen: set[str] = set()
    for entry in entries:
        _check_entry(path, entry)
        if entry.filename in seen:
            raise InputError(f"{path} has two members named {_display_name(entry)}. Pack it again with one of them")
        seen.add(entry.filename)
    # Overlapping members would each pass alone, so their sum is compared with the size of the file on disk.
    _check_size(str(path), sum(entry.file_size for entry in entries), size)


def _check_entry(path: Path, entry: zipfile.ZipInfo) -> None:
    problem = _problem(entry)
    if problem:
        raise InputError(f"{path}: the member {_display_name(entry)} {problem}")


def _problem(entry: zipfile.ZipInfo) -> str | None:
    """The reason for which an archive with this member is refused, and the remedy."""
    name = entry.orig_filename.replace("\\", "/")
    mode = entry.external_attr >> 16
    if len(name) > MAX_NAME or any(ord(letter) < 32 for letter in name):
        return "has a name that no file system takes. Pack the archive again"
    if PureWindowsPath(name).drive or name.startswith("/") or ".." in name.split("/"):
        return "would land outside the folder it is unpacked to. Do not trust this archive; pack it again"
    if stat.S_IFMT(mode) not in {0, stat.S_IFREG, stat.S_IFDIR}:
        return "is a link or a device, not a file. Pack the archive again without it"
    if entry.flag_bits & ZIP_ENCRYPTED:
        return "is encrypted. Unpack the archive with its password and pass the folder"
    is_read = not (entry.is_dir() or is_junk(name) or is_hidden(name))
    if is_read and PurePosixPath(inner_name(Path(), name)).suffix.lower() in ARCHIVES:
        return "is an archive inside an archive. Unpack the outer one and pass the folder"
    return None


def is_junk(name: str) -> bool:
    """Whether a desktop system left this file behind."""
    parts = name.lower().split("/")
    return parts[-1] in JUNK_NAMES or not JUNK_FOLDERS.isdisjoint(parts)


def is_hidden(name: str) -> bool:
    """Whether a file or a folder above it is hidden."""
    return any(part.startswith(".") for part in name.split("/"))


def _display_name(entry: zipfile.ZipInfo) -> str:
    """The name of a member for a message: escaped and shortened, because it may contain anything."""
    return ascii(entry.orig_filename[:80])
