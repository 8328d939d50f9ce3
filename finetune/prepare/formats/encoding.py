"""Detects the encoding of a text file from its first block."""

from __future__ import annotations

import codecs
import re

from finetune.errors import InputError
from finetune.prepare.formats.code_pages import guess_code_page

# In this order: the byte order mark of UTF-32 LE begins with that of UTF-16 LE.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
GUESS_BYTES = 2**14  # enough for a guess, whose time grows with the length
UTF16_NULLS = 0.3  # of the bytes on one side: Latin text in UTF-16 has nearly all of them null, binary data few
UTF32_NULLS = 0.9  # of the third bytes: no plane above the first two is in use for text
BINARY_CONTROLS = 0.05  # of the bytes: text has tabs, line breaks and form feeds, and next to no other control
TEXT_CONTROLS = b"\t\n\x0b\x0c\r\x1a\x1b\x85"
VALID_UTF8 = 0.75  # of the bytes beyond ASCII: the others are damage, because no other encoding looks like UTF-8
HIGH = bytes(range(0x80, 0x100))
SURROGATE = re.compile("[\udc80-\udcff]")  # a byte that is not UTF-8
JAPANESE_SHIFT = (b"\x1b$B", b"\x1b$@")  # of ISO-2022-JP, which is ASCII otherwise


def detect_encoding(sample: bytes, shown: str = "The file") -> str:
    """The Python codec of a text that begins with `sample`, which may end within a character.

    A byte order mark is part of the decoded text ("\\ufeff"), except with "utf-8-sig".

    Raises:
        InputError: it is not text; names `shown`.
    """
    for mark, name in MARKS:
        if sample.startswith(mark):
            return name
    if b"\0" in sample:
        wide = _wide(sample)
        if wide is None:
            raise _binary(shown, "null bytes")
        return wide
    if any(shift in sample for shift in JAPANESE_SHIFT):
        return "iso2022_jp"
    if _is_utf8(sample):
        return "utf-8"
    if _controls(sample) > BINARY_CONTROLS:
        raise _binary(shown, "control bytes")
    telling = b"\n".join(line for line in sample.split(b"\n") if not line.isascii())
    return guess_code_page(telling[:GUESS_BYTES])


def is_encoding(name: str) -> bool:
    """Whether Python has a codec of this name that decodes text."""
    try:
        b"".decode(name)
        "".encode(name)
    except (LookupError, ValueError):
        return False
    return True


def decode(data: bytes, shown: str) -> str:
    """The whole text, without a byte order mark; bytes that its encoding does not define become U+FFFD.

    Raises:
        InputError: it is not text; names `shown`.
    """
    return data.decode(detect_encoding(data, shown), "replace").removeprefix("\ufeff")


def _binary(shown: str, what: str) -> InputError:
    return InputError(f"{shown} is a binary file (it has {what}), not text. Check that its extension is right")


def _is_utf8(sample: bytes) -> bool:
    """Whether the text is UTF-8 but for a few damaged bytes."""
    decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
    damaged = len(SURROGATE.findall(decoder.decode(sample)))
    return damaged <= (1 - VALID_UTF8) * (len(sample) - len(sample.translate(None, HIGH)))


def _wide(sample: bytes) -> str | None:
    """UTF-16 or UTF-32 without a byte order mark, by the position of null bytes."""
    quarters = [sample[position : len(sample) - len(sample) % 4 : 4] for position in range(4)]
    nulls = [quarter.count(0) / max(len(quarter), 1) for quarter in quarters]
    candidates = []
    if nulls[2] > UTF32_NULLS and nulls[3] > UTF32_NULLS:
        candidates.append("utf-32-le")
    if nulls[0] > UTF32_NULLS and nulls[1] > UTF32_NULLS:
        candidates.append("utf-32-be")
    even, odd = sample[0::2].count(0), sample[1::2].count(0)
    half = max(len(sample) // 2, 1)
    if odd / half > UTF16_NULLS and odd > 3 * even:
        candidates.append("utf-16-le")
    if even / half > UTF16_NULLS and even > 3 * odd:
        candidates.append("utf-16-be")
    return next((name for name in candidates if _is_wide_text(sample, name)), None)


def _is_wide_text(sample: bytes, name: str) -> bool:
    try:
        text = codecs.getincrementaldecoder(name)().decode(sample)
    except UnicodeDecodeError:
        return False
    odd = sum(1 for letter in text if letter < " " and letter not in "\t\n\r\x0b\x0c")
    return odd <= BINARY_CONTROLS * len(text)


def _controls(sample: bytes) -> float:
    controls = bytes(byte for byte in range(32) if byte not in TEXT_CONTROLS)
    return (len(sample) - len(sample.translate(None, controls))) / max(len(sample), 1)
