"""Files at an address: https://, and whatever fsspec reaches (s3://, gs://) with the extra `remote`."""

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
    """Whether a source is fetched by URL; hf:// ones have their own way."""
    return "://" in text and not text.startswith(("hf://", "file://"))


def public_address(url: str) -> str:
    """The address without what may be secret: user, password, query."""
    parts = urlsplit(url)
    host = (parts.hostname or "") + (f":{parts.port}" if parts.port else "")
    return f"{parts.scheme}://{host}{parts.path}"


def download(url: str) -> Path:
    """Fetch a file into the user's cache; with the network forbidden, the copy that is there.

    Raises:
        OfflineError: it is not cached and the network is forbidden or out of reach.
        InputError: there is no such file, or the address cannot be read.
    """
    shown = public_address(url)
    name = PurePosixPath(urlsplit(url).path).name
    if not name:
        raise InputError(f"{shown} names no file. Give the address of one file")
    folder = cache_folder() / "sources" / hashlib.sha256(url.encode()).hexdigest()[:16]
    target = folder / name
    if is_offline():
        if target.is_file():
            return target
        raise OfflineError(f"{shown} is not in the cache, and the network is forbidden (--offline). Connect once")
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
        raise InputError(f"There is no file at {shown}. Check the address") from None
    except Exception as error:  # each file system raises its own kinds
        raise OfflineError(
            f"{shown} cannot be fetched ({type(error).__name__}). Check the network, and the right to read it"
        ) from None


def _copy_web(url: str, shown: str, target: Path) -> None:
    import httpx2

    with httpx2.stream("GET", url, follow_redirects=True, timeout=60) as answer, target.open("wb") as out:
        if answer.status_code in {404, 410}:
            raise FileNotFoundError
        if answer.is_error:
            raise InputError(f"{shown} answered {answer.status_code}. Check the address, and the right to read it")
        for data in answer.iter_bytes(CHUNK):
            out.write(data)


def _copy_remote(url: str, shown: str, target: Path) -> None:
    import fsspec

    try:
        with fsspec.open(url, "rb") as source, target.open("wb") as out:
            shutil.copyfileobj(source, out, CHUNK)
    except (ImportError, ValueError) as error:
        hint = " Install what it needs: pip install 'slmtune[remote]'" if isinstance(error, ImportError) else ""
        raise InputError(f"{shown} cannot be read: slmtune fetches https://, s3:// and gs://.{hint}") from None
