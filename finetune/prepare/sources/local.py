"""Finds the files of a source on this machine: from a path, a folder, a glob or an archive."""

from __future__ import annotations

import difflib
import glob
import logging
import os
import re
from pathlib import Path

from finetune.errors import InputError
from finetune.prepare.documents.readers import DOCUMENTS
from finetune.prepare.formats.containers import inner_name, members
from finetune.prepare.formats.files import DataFile, suffix_of
from finetune.prepare.formats.readers import READERS
from finetune.prepare.sources.remote import NO_DATA
from finetune.prepare.splits.shares import WORDS, named_split

# Files about a folder rather than part of its data; they are read only if named explicitly.
ABOUT = re.compile(r"(?:readme|licen[cs]e|changelog|changes|notice|attribution|authors|contributing)\b", re.I)

log = logging.getLogger(__name__)


def readable() -> str:
    """The file extensions that slmtune reads, for a message."""
    return ", ".join((*READERS, *DOCUMENTS)) + "; also inside .gz, .zst and .zip"


def is_document(file: DataFile) -> bool:
    """Whether a file is a document rather than a file of rows."""
    return file.suffix not in READERS


def find_files(text: str) -> list[DataFile]:
    """The readable files of a path, a folder or a glob, including those in archives.

    Raises:
        InputError: there are none, an archive is malicious, or a link points outside the folder.
    """
    path = Path(text).expanduser()
    if path.is_dir():
        root, found = path, _walk(path)
        if not found:
            raise InputError(f"{text} has no files that slmtune reads. It reads {readable()}")
    elif path.exists() or path.is_symlink():
        root, found = path.parent, [path]
        if path.suffix.lower() != ".zip" and not _is_known(inner_name(path, None)):
            raise InputError(f"{text} is in a format that slmtune does not read. It reads {readable()}")
    else:
        root = path.parent
        found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True)) if _is_wanted(Path(name))]
        if not found:
            raise _missing(text)
    folder = f"{root.name}/" if path.is_dir() and root.name.lower() in WORDS else ""
    files = [file for path in found for file in _data_files(path, root, folder)]
    if not files:
        raise InputError(f"{text} holds no file that slmtune reads. It reads {readable()}")
    return files


def _walk(root: Path) -> list[Path]:
    """All readable files below a folder, in order, except hidden files and files about the folder."""
    found = []
    real = os.path.realpath(root)
    for folder, folders, names in os.walk(root):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            path = Path(folder, name)
            if name.startswith(".") or not _is_wanted(path):
                continue
            if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(real):
                raise InputError(f"{path} is a link to a file outside {root}. Copy the file there, or remove the link")
            found.append(path)
    about = [path for path in found if ABOUT.match(path.name)]
    if about and len(about) < len(found):
        log.info("%s: skipped %s, which describe the folder.", root, ", ".join(sorted(path.name for path in about)))
        found = [path for path in found if path not in about]
    return sorted(found, key=lambda path: path.relative_to(root).parts)


def _data_files(file: Path, root: Path, folder: str) -> list[DataFile]:
    name = file.relative_to(root).as_posix() if file.is_relative_to(root) else file.name
    files = []
    for member in members(file):
        inside = name if member is None else f"{name}/{member}"
        shown = str(file) if member is None else f"{file}/{member}"
        if member is None or _is_known(inner_name(file, member)):
            parent = inside.rsplit("/", 1)[0] + "/" if "/" in inside else ""
            split = named_split(f"{folder}{parent}{inner_name(Path(inside), None)}")
            files.append(DataFile(file, inside, shown, split, member))
    return files


def _is_wanted(file: Path) -> bool:
    known = file.suffix.lower() == ".zip" or _is_known(inner_name(file, None))
    return known and file.is_file() and file.name not in NO_DATA


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
