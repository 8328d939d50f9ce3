"""Downloads files from addresses; from a bucket, also a folder, or the files that a glob matches."""

from __future__ import annotations

import hashlib
import shutil
from glob import has_magic
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from finetune.artifacts import write_aside
from finetune.errors import InputError, OfflineError, SlmtuneError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder
from finetune.storage.address import WEB, public_address

CHUNK = 2**20
INSTALL = "pip install 'slmtune[remote]'"


def matched_folder(url: str) -> str:
    """The URL of the folder whose files a glob matches, without parts that may be secret; other URLs are all of it."""
    return _fixed(public_address(url)).rstrip("/")


def _fixed(place: str) -> str:
    """A path up to its first part with a wildcard."""
    parts = place.split("/")
    return "/".join(parts[: next((number for number, part in enumerate(parts) if has_magic(part)), len(parts))])


def download(url: str, *, missing: SlmtuneError | None = None) -> Path:
    """Download a file or folder to the user's cache or, if the network is forbidden, return the cached copy.

    Raises:
        OfflineError: it is not cached, and the network is forbidden or cannot be reached.
        InputError: the URL cannot be read, or there is no such file, unless `missing` is raised then.
    """
    shown = public_address(url)
    web = urlsplit(url).scheme in WEB
    name = PurePosixPath(urlsplit(shown if web else matched_folder(url)).path).name or ("" if web else "bucket")
    if not name or (web and shown.endswith("/")):
        raise InputError(f"{shown} does not name a file. Give the URL of one file")
    folder = cache_folder() / "sources" / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / name
    if is_offline():
        if target.exists():
            return target
        raise OfflineError(
            f"{shown} is not in the cache, and the network is forbidden (--offline). Run once without --offline"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(target) as staging:
        copy(url, staging, missing=missing)
    return target


def copy(url: str, target: Path, *, missing: SlmtuneError | None = None) -> None:
    """Copy a file or folder to a new path. Raises what `download` raises."""
    shown = public_address(url)
    try:
        if urlsplit(url).scheme in WEB:
            _copy_web(url, shown, target)
        else:
            _copy_remote(url, shown, target)
    except InputError:
        raise
    except FileNotFoundError:
        raise (missing or InputError(f"There is no file at {shown}. Check the URL")) from None
    except Exception as error:  # each file system raises errors of its own
        raise OfflineError(
            f"{shown} cannot be downloaded ({type(error).__name__}). Check the network and your permission to read it"
        ) from None


def _copy_web(url: str, shown: str, target: Path) -> None:
    import httpx2

    with httpx2.stream("GET", url, follow_redirects=True, timeout=60) as answer, target.open("wb") as out:
        if answer.status_code in {404, 410}:
            raise FileNotFoundError
        if answer.is_error:
            raise InputError(
                f"{shown} answered with status {answer.status_code}. Check the URL and your permission to read it"
            )
        for data in answer.iter_bytes(CHUNK):
            out.write(data)


def _copy_remote(url: str, shown: str, target: Path) -> None:
    import fsspec

    try:
        files, place = fsspec.url_to_fs(url)
        if has_magic(place):
            names = [name for name, about in files.glob(place, detail=True).items() if about["type"] == "file"]
            _copy_folder(files, names, _fixed(place), shown, target)
        elif files.isdir(place):
            _copy_folder(files, files.find(place), place, shown, target)
        else:
            with files.open(place, "rb") as source, target.open("wb") as out:
                shutil.copyfileobj(source, out, CHUNK)
    except (ImportError, ValueError) as error:
        hint = f" Install the missing libraries with: {INSTALL}" if isinstance(error, ImportError) else ""
        raise InputError(f"{shown} cannot be read: slmtune downloads from https://, s3:// and gs://.{hint}") from None


def _copy_folder(files: Any, names: list[str], root: str, shown: str, target: Path) -> None:
    """Copy files below a root, with their folders.

    Raises:
        FileNotFoundError: there are none.
        InputError: a name points outside the root.
    """
    if not names:
        raise FileNotFoundError
    for name in names:
        inside = PurePosixPath(name.removeprefix(root.rstrip("/") + "/"))
        if leads_out(inside):
            raise InputError(f"{shown} has an object whose name points outside it. Rename the object")
        place = target / inside
        place.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(name, str(place))


def leads_out(name: PurePosixPath) -> bool:
    """Whether a name does not stay inside the folder that it is relative to."""
    return name.is_absolute() or ".." in name.parts
