"""The secret from which surrogates follow: a file in the user's cache that only the user can read."""

from __future__ import annotations

import os
import secrets
from contextlib import suppress
from functools import cache

from finetune.errors import InputError
from finetune.machine import cache_folder

BYTES = 32


@cache
def own_secret() -> bytes:
    """The secret of this user, made when it is first needed.

    Deleting the file makes new surrogates; whoever has it can test guesses about what a surrogate stands for.

    Raises:
        InputError: it can be neither read nor written.
    """
    path = cache_folder() / "scrub-secret"
    try:
        if not path.is_file():
            path.parent.mkdir(parents=True, exist_ok=True)
            aside = path.with_name(f"{path.name}.{os.getpid()}")
            with open(aside, "wb", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
                file.write(secrets.token_bytes(BYTES))
            with suppress(FileExistsError):  # another process was faster, and its secret counts
                os.link(aside, path)
            aside.unlink()
        return path.read_bytes()
    except OSError as error:
        raise InputError(
            f"The secret of surrogates cannot be kept at {path} ({error.strerror}). Make the folder writable, set "
            "XDG_CACHE_HOME to another, or choose another policy"
        ) from None
