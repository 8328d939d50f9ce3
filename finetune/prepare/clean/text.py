"""Cleans text for all later steps: correct decoding, composed characters, plain white space, nothing invisible.

`clean_text` is for prose, `clean_lightly` for text in which every character counts: turns of chats, code, markup. What
`clean_text` repairs and what stays, where ftfy offers a choice:

- Mojibake is decoded again (`ftfy.fix_encoding`), a line at a time, since texts are pasted together from several
  encodings. C1 controls become what Windows-1252 has in their place, as browsers read them.
- HTML entities are written out unless the text holds tags: then it is markup, which `finetune.prepare.clean.markup` reads.
- Typesetters' ligatures (ﬁ) are taken apart and full-width Latin letters and digits made ordinary. Chinese and Japanese
  punctuation, the ideographic space, Ĳ and ǆ stay: they are how those languages are written.
- Curly quotes stay, and there is no NFKC: it would turn 10³ into 103, ½ into 1⁄2 and µ into another letter.
- Zero-width joiners stay between characters that they join (emoji, Persian, Indic scripts).
- Code in fences or between backticks keeps its characters; indented lines and lines of tables keep blanks and entities.
"""

from __future__ import annotations

import re
import unicodedata
from html import unescape
from html.entities import html5

from ftfy import TextFixerConfig, fix_encoding

from finetune.prepare.clean.code import CODE, KEPT, change_outside
from finetune.prepare.clean.mojibake import MOJIBAKE
from finetune.records import Change

LINE_BREAKS = re.compile(r"\r\n?|[\x0b\x0c\u2028\u2029]")
TERMINAL = re.compile(r"\x1b(?:\[[0-9;:?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\))")
ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9a-fA-F]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
TAG = re.compile(r"<[A-Za-z/!?]")
C1_CONTROLS = re.compile(r"[\x80-\x9f]")
CONTROLS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
CONTROLS_OR_BREAKS = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u2028\u2029]")
ODD_SPACES = re.compile(r"[\u00a0\u1680\u2000-\u200a\u202f\u205f]")
# Soft hyphen, zero-width space, word joiner, byte order mark, bidirectional and annotation controls, noncharacters.
INVISIBLE = re.compile(
    r"[\x00-\x08\x0e-\x1f\x7f-\x9f\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    r"\ufdd0-\ufdef\ufffe\uffff]"
)
# Joiners join only letters of other scripts than Latin, Greek and Cyrillic, and emoji.
LONE_JOINERS = re.compile(
    r"(?<![\u0590-\u1fff\u2100-\U0010ffff])[\u200c\u200d]+|[\u200c\u200d]+(?![\u0590-\U0010ffff])"
)
# Tags spell out a region after the black flag (England, Scotland, Wales); elsewhere they are text that no one sees.
TAG_CHARACTERS = re.compile("(\U0001f3f4[\U000e0030-\U000e007a]{3,6}\U000e007f)|[\U000e0000-\U000e007f]")
PLAIN_FORMS = {
    **{chr(code + 0xFEE0): chr(code) for code in range(128) if chr(code).isalnum()},
    **dict(zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True)),
    "\uf0b7": "•",  # the bullet of the Symbol font, as word processors write it
}
FORMS = re.compile(f"[{''.join(PLAIN_FORMS)}]")
ODD = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\xa0\u00ad\u061c\u1680\u2000-\u200f\u2028-\u202f\u205f-\u206f\uf0b7\ufb00-\ufb06\ufdd0-\ufdef"
    r"\ufeff\uff10-\uff19\uff21-\uff3a\uff41-\uff5a\ufff9-\ufffb\ufffe\uffff\U000e0000-\U000e007f]"
)
BLANKS = " \t\n"
# What must not stand before is asked after the first character, so that the search can skip to such characters.
BLANKS_INSIDE = re.compile(r"[ \t](?<=[^ \t\n].)[ \t]++(?=[^ \t\n])")
BLANKS_AT_END = re.compile(r"[ \t\u3000](?<![ \t\u3000].)[ \t\u3000]*+(?=\n)")
BLANK_LINES = re.compile(r"\n{4,}")
BLANK_LINES_BEFORE = re.compile(r"\A(?:[ \t]*+\n)+")

Changes = set[Change]


def clean_text(text: str, changes: Changes | None = None, *, entities: bool = True) -> str:
    """Repair and compose the text and remove invisible characters; idempotent.

    Indentation is kept, a run of blanks inside a line becomes one blank (or its tabs), and three or more blank lines
    become one.

    Args:
        text: prose, which may contain code and tables.
        changes: receives the kinds of changes.
        entities: decode HTML entities; not in a text that a parser of markup has written.

    Raises:
        UnicodeEncodeError: the text contains half of a surrogate pair and cannot be written as UTF-8.
    """
    if is_plain(text) and "&" not in text and not _has_blanks(text):
        return text
    if not text.isascii():
        text.encode()
    changes = set() if changes is None else changes
    before = None
    while text != before:  # one repair may uncover the need for another
        before = text
        text = _tidy(_repair(text, changes, entities) if _is_odd(text, entities) else text, changes)
    return text


def clean_lightly(text: str, changes: Changes | None = None) -> str:
    """Compose the text, unify its line ends, and remove control characters and the blanks around it; idempotent.

    The indentation of the first line and one line break at the end are kept, because code needs them.

    Raises:
        UnicodeEncodeError: see `clean_text`.
    """
    if is_plain(text):
        return text
    if not text.isascii():
        text.encode()
    changes = set() if changes is None else changes
    return _trim(_compose(_remove_controls(text, changes), changes), changes)


def is_plain(text: str) -> bool:
    """Whether a text is ASCII without control characters, tabs and blanks around it, as most are."""
    return text.isascii() and text.replace("\n", "").isprintable() and text == text.strip()


def mend_mojibake(text: str, changes: Changes) -> str:
    """Decode lines again that were decoded wrongly."""
    if not MOJIBAKE.search(text):
        return text
    again = "\n".join(_decode_again(line) if MOJIBAKE.search(line) else line for line in text.split("\n"))
    return _note("mojibake repaired", text, again, changes)


def _has_blanks(text: str) -> bool:
    """Whether there are blanks to remove inside a text."""
    if "  " in text or "\t" in text:
        return True
    return "\n" in text and (" \n" in text or "\n\n\n\n" in text or "\u3000\n" in text)


def _is_odd(text: str, entities: bool) -> bool:
    """Whether anything but white space may need repair."""
    if entities and "&" in text and ENTITY.search(text):
        return True
    if text.isascii():
        return bool(CONTROLS.search(text))
    return bool(ODD.search(text) or MOJIBAKE.search(text)) or not unicodedata.is_normalized("NFC", text)


def _repair(text: str, changes: Changes, entities: bool) -> str:
    text = _remove_controls(text, changes)
    if entities and "&" in text and not TAG.search(text):
        decoded = change_outside(KEPT, text, lambda prose: ENTITY.sub(_write_out, prose))
        text = _note("entities decoded", text, decoded, changes)
    if not text.isascii():
        text = change_outside(CODE, text, lambda prose: _repair_characters(prose, changes))
    return _compose(text, changes)


def _remove_controls(text: str, changes: Changes) -> str:
    if not (CONTROLS if text.isascii() else CONTROLS_OR_BREAKS).search(text):
        return text
    text = _note("control characters removed", text, TERMINAL.sub("", text), changes)
    text = _note("line ends unified", text, LINE_BREAKS.sub("\n", text), changes)
    return _note("control characters removed", text, CONTROLS.sub("", text), changes)


def _repair_characters(text: str, changes: Changes) -> str:
    text = _mend_controls(mend_mojibake(text, changes), changes)
    visible = LONE_JOINERS.sub("", INVISIBLE.sub("", TAG_CHARACTERS.sub(r"\1", text)))
    text = _note("invisible characters removed", text, visible, changes)
    plain = FORMS.sub(lambda match: PLAIN_FORMS[match[0]], ODD_SPACES.sub(" ", text))
    return _note("Unicode normalised", text, plain, changes)


def _mend_controls(text: str, changes: Changes) -> str:
    return _note("control characters removed", text, C1_CONTROLS.sub(_as_windows, text), changes)


def _compose(text: str, changes: Changes) -> str:
    if text.isascii():
        return text
    if C1_CONTROLS.search(text) and not MOJIBAKE.search(text):  # in mojibake they are half of a character
        text = _mend_controls(text, changes)
    return _note("Unicode normalised", text, unicodedata.normalize("NFC", text), changes)


def _tidy(text: str, changes: Changes) -> str:
    tidy = text
    if _has_blanks(text):
        tidy = change_outside(KEPT, text, _tidy_blanks)
    stripped = tidy.strip()
    if stripped is not tidy and ("\n  " in stripped or "\n\t" in stripped):
        stripped = _indentation(tidy) + stripped
    return _note("blanks removed", text, stripped, changes)


def _tidy_blanks(text: str) -> str:
    if "\n" in text:
        text = BLANK_LINES.sub("\n\n", BLANKS_AT_END.sub("", text))
    return BLANKS_INSIDE.sub(_one_blank, text) if "  " in text or "\t" in text else text


def _trim(text: str, changes: Changes) -> str:
    if text[:1] not in BLANKS and text[-1:] not in BLANKS:
        return text
    body = text.rstrip(BLANKS)
    trimmed = BLANK_LINES_BEFORE.sub("", body + ("\n" if "\n" in text[len(body) :] else ""))
    if not _indentation(trimmed):
        trimmed = trimmed.lstrip(" ")
    return _note("blanks removed", text, trimmed, changes)


def _indentation(text: str) -> str:
    """The blanks before the first line that is not blank, unless it is a single one."""
    before = text[: len(text) - len(text.lstrip(BLANKS))].rpartition("\n")[2]
    return "" if before == " " else before


def _decode_again(line: str) -> str:
    return fix_encoding(line, TextFixerConfig(explain=False))


def _as_windows(match: re.Match[str]) -> str:
    return match[0].encode("latin-1").decode("cp1252", "ignore")


def _write_out(match: re.Match[str]) -> str:
    name = match[0][1:]
    return unescape(match[0]) if name.startswith("#") else html5.get(name, match[0])


def _one_blank(match: re.Match[str]) -> str:
    return "\t" * match[0].count("\t") or " "


def _note(change: Change, before: str, after: str, changes: Changes) -> str:
    if after != before:
        changes.add(change)
    return after
