"""Text as every later step may expect it: composed Unicode, plain line breaks, nothing invisible at the ends."""

from __future__ import annotations

import re
import unicodedata

LINE_BREAKS = re.compile(r"\r\n?|\u2028|\u2029|\x85")
# C0 and C1 controls, the byte order mark and noncharacters; tab and line break stay.
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\ufeff\ufffe\uffff]")
TRAILING = re.compile(r"[^\S\n]+(?=\n)")


def clean_text(text: str) -> str:
    """Compose to Unicode NFC and remove control characters and trailing blanks; a second pass changes nothing.

    Raises:
        UnicodeEncodeError: the text holds half of a surrogate pair and so cannot be written as UTF-8.
    """
    text.encode()
    text = CONTROLS.sub("", LINE_BREAKS.sub("\n", text))
    return unicodedata.normalize("NFC", TRAILING.sub("", text).strip())
