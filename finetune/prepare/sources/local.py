"""Finds the files of a source on this machine: from a path, a folder, a glob or an archive."""

from __future__ import annotations

import difflib
import glob
import os
import posixpath
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from finetune.errors import InputError
from finetune.prepare.documents.readers import DOCUMENTS
from finetune.prepare.formats.containers import MAILBOX, inner_name, is_hidden, is_junk, members
from finetune.prepare.formats.files import DataFile, suffix_of
from finetune.prepare.formats.readers import READERS
from finetune.prepare.sources.remote import NO_DATA

# Texts about a folder rather than part of its data; they are read only if named explicitly.
TEXT = r"(?:\.(?:md|markdown|txt|text|html?))?"
README = re.compile(rf"readme(?:[-_.][a-z]{{2}}(?:[-_][a-z]{{2,4}})?)?{TEXT}", re.I)
LEGAL = re.compile(rf"(?:licen[cs]e|changelog|changes|notice|attribution|authors|contributing){TEXT}", re.I)
HIDDEN, FOLDERS, NO_ENDING = "hidden files", "folders", "files without an ending"  # kinds of what is not read
FEW = 3  # files of one kind that are named one by one


@dataclass(frozen=True)
class Listing:
    """The files of a source that are read, and the number of those that are not, by name, or by ending if many."""

    files: tuple[DataFile, ...]
    unread: Mapping[str, int]


def readable() -> str:
    """The file extensions that slmtune reads, for a message."""
    return ", ".join((*READERS, *DOCUMENTS)) + "; also inside .gz, .zst and .zip, and .mbox"


def is_document(file: DataFile) -> bool:
    """Whether a file is a document rather than a file of rows."""
    return file.suffix not in READERS


def find_files(text: str) -> Listing:
    """The files of a path, a folder or a glob, including those in archives.

    Raises:
        InputError: none is readable, an archive is malicious, or a link points outside the folder.
    """
    path, root = Path(text).expanduser(), folder_of(text)
    if path.is_dir():
        paths = sorted(_walk(path), key=lambda each: each.relative_to(root).parts)
    elif path.exists() or path.is_symlink():
        if not _is_archive(path) and not _is_known(inner_name(path, None)):
            raise InputError(f"{text} is in a format that slmtune does not read. It reads {readable()}")
        paths = [path]
    else:
        paths = _match(path)
        if not paths:
            raise _missing(text)
    files: list[DataFile] = []
    unread: list[tuple[str, str]] = []
    for each in paths:
        for file in _open(each, root, chosen=each == path):
            kind = None if each == path and file.member is None else _unread_kind(file)
            if kind is None:
                files.append(file)
            else:
                unread.append((kind, file.name))
    if not files:
        names = ", ".join(list(count_names(unread))[: 2 * FEW]) or "nothing"
        raise InputError(f"{text} has no files that slmtune reads (it has {names}). It reads {readable()}")
    about = _about(files)
    unread += [(posixpath.basename(file.name), file.name) for file in files if file in about]
    return Listing(tuple(file for file in files if file not in about), count_names(unread))


def folder_of(text: str) -> Path:
    """The folder of a source, to which the names of its files are relative."""
    path = Path(text).expanduser()
    if path.is_dir():
        return path
    parent = path.parent
    while glob.has_magic(str(parent)) and not parent.is_dir():
        parent = parent.parent
    return parent


def count_names(unread: Iterable[tuple[str, str]]) -> dict[str, int]:
    """The number of unread files by name or, of more than a few of one kind, by kind; `unread` has (kind, name)."""
    kinds: defaultdict[str, list[str]] = defaultdict(list)
    for kind, name in unread:
        kinds[kind].append(name)
    counts: dict[str, int] = {}
    for kind, names in sorted(kinds.items()):
        counts |= dict.fromkeys(names, 1) if len(names) <= FEW else {kind: len(names)}
    return counts


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder, and the folders that are not entered: hidden ones and links within it."""
    for folder, folders, names in os.walk(root, onerror=_refuse_folder):
        shut = [name for name in folders if name.startswith(".") or Path(folder, name).is_symlink()]
        folders[:] = [name for name in folders if name not in shut and not is_junk(name)]
        for path in (Path(folder, name) for name in (*shut, *names) if not is_junk(name)):
            if path.is_symlink() and not path.name.startswith("."):
                _check_link(path, root)
            yield path


def _check_link(path: Path, root: Path) -> None:
    kind = "folder" if path.is_dir() else "file"
    is_read = kind == "folder" or _is_archive(path) or _is_known(inner_name(path, None))
    if is_read and not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root)):
        raise InputError(f"{path} is a link to a {kind} outside {root}. Copy the {kind} there, or remove the link")


def _refuse_folder(error: OSError) -> NoReturn:
    raise InputError(f"{error.filename} cannot be read ({error.strerror}). Check its permissions")


def _match(pattern: Path) -> list[Path]:
    """What a glob matches, without folders whose files it matches too."""
    paths = [Path(name) for name in sorted(glob.glob(str(pattern), recursive=True))]
    entered = {parent for path in paths for parent in path.parents}
    return [path for path in paths if path not in entered]


def _open(path: Path, root: Path, *, chosen: bool) -> Iterator[DataFile]:
    """A file, or the members of an archive. What is not read, such as a folder, is passed on unopened."""
    name = path.relative_to(root).as_posix() + ("/" if path.is_dir() else "")
    file = DataFile(path, name, str(path))
    if not chosen and _unread_kind(file) is not None:
        yield file
        return
    for member in members(path):
        yield file if member is None else DataFile(path, f"{name}/{member}", f"{path}/{member}", member=member)


def _unread_kind(file: DataFile) -> str | None:
    """The kind under which a file that is not read is counted; None if it is read."""
    base = posixpath.basename(file.name)
    if is_hidden(file.member or file.name):
        return HIDDEN
    if file.name.endswith("/"):
        return FOLDERS
    if file.member is None and _is_archive(file.path) and file.path.is_file():
        return None
    if not _is_known(inner_name(file.path, file.member)):
        return suffix_of(base) or NO_ENDING
    return base if base in NO_DATA or not file.path.is_file() else None


def _about(files: Sequence[DataFile]) -> set[DataFile]:
    """The files about a folder. A README below other documents is one of them, unless it lies beside rows."""
    folders = {file.name: f"/{posixpath.dirname(file.name)}" for file in files}
    top = posixpath.commonpath(folders.values())
    marked = {top, *(folders[file.name] for file in files if not is_document(file))}
    about = set()
    for file in files:
        base = posixpath.basename(file.name)
        if LEGAL.fullmatch(base) or (README.fullmatch(base) and folders[file.name] in marked):
            about.add(file)
    return about if len(about) < len(files) else set()


def _is_archive(path: Path) -> bool:
    return path.suffix.lower() in {".zip", MAILBOX}


def _is_known(name: str) -> bool:
    return suffix_of(name) in READERS or suffix_of(name) in DOCUMENTS


def _missing(text: str) -> InputError:
    folder = Path(text).expanduser().absolute().parent
    names = [path.name for path in folder.glob("*")] if folder.is_dir() else []
    near = difflib.get_close_matches(Path(text).name, names, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    if re.fullmatch(r"[\w.-]+/[\w.-]+", text):
        hint += f" For a data set on the Hub, write hf://datasets/{text}"
    return InputError(f"There is no file or folder {text}.{hint or ' Check the path'}")
