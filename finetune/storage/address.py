"""Addresses of files and folders, and what of them may be shown."""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard
from urllib.parse import urlsplit

from finetune.errors import InputError

WEB = {"http", "https"}


def is_address(place: Path | str) -> TypeGuard[str]:
    """Whether a place is not on this machine; hf:// is handled separately."""
    return isinstance(place, str) and "://" in place and not place.startswith(("hf://", "file://"))


def public_address(url: str) -> str:
    """The URL without parts that may be secret: user, password and query."""
    parts = urlsplit(url)
    try:
        port = f":{parts.port}" if parts.port else ""
    except ValueError:  # of KEY:SECRET@BUCKET, with a slash in the secret
        return public_address(f"{parts.scheme}://{url.rpartition('@')[2]}") if "@" in url else f"{parts.scheme}://…"
    return f"{parts.scheme}://{parts.hostname or ''}{port}{parts.path}"


def folder_address(text: str) -> str:
    """The address of a folder as it may be kept and shown, without a slash at its end.

    Raises:
        InputError: it has a user, a password or a query. The message does not repeat them.
    """
    if "@" in text or "?" in text:
        raise InputError(
            f"The address {public_address(text)} must not have a user, a password or a query, because addresses are kept and "
            "shown. Leave them out; credentials are read from the environment, such as AWS_ACCESS_KEY_ID"
        )
    return text.rstrip("/")
