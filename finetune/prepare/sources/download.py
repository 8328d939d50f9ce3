"""Downloads files from URLs: https://, and whatever fsspec reaches (s3://, gs://) with the extra `remote`."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from finetune.artifacts import write_aside
from finetune.errors import InputError, OfflineError
from finetune.hub.settings import is_offline
from finetune.machine import cache_folder

CHUNK = 2**20


def is_address(text: str) -> bool:
    """Whether a source is a URL to download; hf:// is handled separately."""
    return "://" in text and not text.startswith(("hf://", "file://"))


def public_address(url: str) -> str:
    """The URL without parts that may be secret: user, password and query."""
    parts = urlsplit(url)
    host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    return f"{parts.scheme}://{host}{parts.path}"


def download(url: str) -> Path:
    """Download a file to the user's cache or, if the network is forbidden, return the cached copy.

    Raises:
        OfflineError: it is not cached, and the network is forbidden or cannot be reached.
        InputError: there is no such file, or the URL cannot be read.
    """
    shown = public_address(url)
    name = PurePosixPath(urlsplit(url).path).name
    if not name:
        raise InputError(f"{shown} does not name a file. Give the URL of one file")
    folder = cache_folder() / "sources" / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / name
    if is_offline():
        if target.is_file():
            return target
        raise OfflineError(
            f"{shown} is not in the cache, and the network is forbidden (--offline). Run once without --offline"
        )
    folder.mkdir(parents=True, exist_ok=True)
    with write_aside(target) as staging:
        _copy(url, shown, staging)
    return target


def _copy(url: str, shown: str, target: Path) -> None:
    try:
        if urlsplit(url).scheme in {"http", "https"}:
            _copy_web(url, shown, target)
        else:
            _copy_remote(url, shown, target)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"There is no file at {shown}. Check the URL") from None
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
        with fsspec.open(url, "rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
    except (ImportError, ValueError) as error:
        hint = (
            " Install the missing libraries with: pip install 'slmtune[remote]'"
            if isinstance(error, ImportError)
            else ""
        )
        raise InputError(f"{shown} cannot be read: slmtune downloads from https://, s3:// and gs://.{hint}") from None
