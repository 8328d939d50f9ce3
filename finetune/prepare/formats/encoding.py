"""Detects the encoding of a text file from its first block."""

from __future__ import annotations

import codecs
import re

from charset_normalizer import from_bytes

from finetune.errors import InputError

# In this order: the byte order mark of UTF-32 LE begins with that of UTF-16 LE.
MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
GUESS_BYTES = 2**16  # enough for charset-normalizer, whose time grows with the length
UTF16_NULLS = 0.3  # of the bytes on one side: Latin text in UTF-16 has nearly all of them null, binary data few
UTF32_NULLS = 0.9  # of the third bytes: no plane above the first two is in use for text
BINARY_CONTROLS = 0.05  # of the bytes: text has tabs, line breaks and form feeds, and next to no other control
TEXT_CONTROLS = b"\t\n\x0b\x0c\r\x1a\x1b\x85"
# The meaning of an undefined byte of Windows-1252: such a text is Latin-1, where the byte is a (rare) control.
UNDEFINED_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")
# charset-normalizer's answers that are preferred to Windows-1252: other scripts, whose letters it can tell apart.
EAST_ASIA = ("cp932", "shift_jis", "euc_jp", "iso2022_jp", "gb18030", "gbk", "gb2312", "big5", "cp949", "euc_kr")
CYRILLIC = ("cp1251", "koi8_r", "koi8_u", "iso8859_5", "mac_cyrillic")
OTHERS = ("cp1253", "iso8859_7", "cp1255", "iso8859_8", "cp1256", "iso8859_6", "cp874", "tis_620")
OTHER_SCRIPTS = frozenset((*EAST_ASIA, *CYRILLIC, *OTHERS))
# It confuses French and Central European text; there, signs inside words decide.
CENTRAL_EUROPE = frozenset(("cp1250", "iso8859_2"))
SIGN_IN_WORD = re.compile(r"[A-Za-z][¡-¿][a-z]")  # Polish in Windows-1252: "ma³y", "mo¿e"
SIGN_SHARE = 0.1  # of the bytes beyond ASCII
OTHER_SHARE = 0.05  # of the bytes: fewer are a few accents and quotes between ASCII letters, as no other script is


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
    if _is_utf8(sample):
        return "utf-8"
    if _controls(sample) > BINARY_CONTROLS:
        raise _binary(shown, "control bytes")
    return _legacy(sample)


def decode(data: bytes, shown: str) -> str:
    """The whole text, without a byte order mark; bytes that its encoding does not define become U+FFFD.

    Raises:
        InputError: it is not text; names `shown`.
    """
    return data.decode(detect_encoding(data, shown), "replace").removeprefix("\ufeff")


def _binary(shown: str, what: str) -> InputError:
    return InputError(f"{shown} is a binary file (it has {what}), not text. Check that its extension is right")


def _is_utf8(sample: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(sample)
    except UnicodeDecodeError:
        return False
    return True


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


def _legacy(sample: bytes) -> str:
    """A single-byte or East Asian encoding; Windows-1252 unless another script is obvious."""
    sample = sample[:GUESS_BYTES]
    high = [byte for byte in sample if byte >= 0x80]
    central = len(SIGN_IN_WORD.findall(sample.decode("latin-1"))) > SIGN_SHARE * len(high)
    if central or len(high) > OTHER_SHARE * len(sample):
        matches = [match.encoding for match in from_bytes(sample)]
        # The best of those that signs inside words suggest; else the best overall, if it is another script.
        found = [name for name in matches if name in CENTRAL_EUROPE] if central else matches[:1]
        if found and (central or found[0] in OTHER_SCRIPTS):
            return found[0]
    return "latin-1" if UNDEFINED_1252.intersection(high) else "cp1252"
