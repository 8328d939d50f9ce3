"""The API keys of a server: read from a file or the environment, and compared in constant time."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from finetune.errors import InputError

VARIABLE, ADMIN_VARIABLE = "SLMTUNE_API_KEYS", "SLMTUNE_ADMIN_KEYS"
LINE = re.compile(r"(?:(?P<name>[A-Za-z0-9._-]{1,64})\s+)?(?P<value>[!-~]+)")  # a key must fit in a header
SEPARATOR = re.compile(r"[\n,]")


@dataclass(frozen=True)
class ApiKey:
    """A key that clients send, and the name under which the log and the limits know who sends it.

    The key of an administrator is for loading and unloading adapters only.
    """

    name: str
    value: str = field(repr=False)
    is_admin: bool = False


def read_keys(text: str, source: str, *, is_admin: bool = False) -> tuple[ApiKey, ...]:
    """The keys in a text: one per line or between commas, `KEY` or `NAME KEY`; lines that begin with # are comments.

    Raises:
        InputError: there is none, a line is neither, or a name or a key occurs twice; names `source` and the line.
    """
    keys: list[ApiKey] = []
    for number, line in enumerate(SEPARATOR.split(text), 1):
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        match = LINE.fullmatch(line.strip())
        if match is None:
            raise InputError(
                f"Line {number} of {source} is neither KEY nor NAME KEY in printable ASCII characters. Write one key per line"
            )
        keys.append(ApiKey(match["name"] or f"key{number}", match["value"], is_admin))
    if not keys:
        raise InputError(
            f"There is no key in {source}. Put a long random string into it, such as that of: openssl rand -hex 32"
        )
    for kind, values in (("name", [key.name for key in keys]), ("key", [key.value for key in keys])):
        if len(set(values)) < len(values):
            raise InputError(f"Two lines of {source} have the same {kind}. Remove one of them, or change it")
    return tuple(keys)


class KeyRing:
    """Recognises keys, in a time that does not depend on what they have in common with the keys that are valid."""

    def __init__(self, keys: Sequence[ApiKey]) -> None:
        self._digests = [(key.name, _digest(key.value.encode())) for key in keys]

    def name_of(self, value: bytes) -> str | None:
        """The name of a key, or None if it is not valid."""
        digest = _digest(value)
        names = [name for name, known in self._digests if hmac.compare_digest(digest, known)]
        return names[0] if names else None


def _digest(value: bytes) -> bytes:
    return hashlib.sha256(value).digest()
