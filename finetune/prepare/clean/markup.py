"""Turns HTML tags in the texts of rows, common in dumps of reviews and forums, into plain text."""

from __future__ import annotations

import re
from html import unescape

from finetune.prepare.clean.code import CODE, KEPT, change_outside

# Elements that stand in the running text of dumps. `s` is missing: `<s>` is more often a control token.
BLOCKS = (
    "address|article|aside|blockquote|center|dd|div|dl|dt|figcaption|figure|footer|form|h[1-6]|header|main|nav|ol|p"
)
BLOCKS += "|pre|section|table|tbody|tfoot|thead|tr|ul|body|html|head"
INLINES = "a|abbr|acronym|b|big|button|caption|cite|code|del|dfn|em|font|i|iframe|ins|kbd|label|mark|q|samp|small|span"
INLINES += "|strike|strong|tt|u|var|wbr|img|input|link|meta|colgroup|col|title"
OTHERS = "br|hr|li|td|th|sup|sub|script|style|noscript"
ATTRIBUTES = r"""(?:\s+[A-Za-z][\w:.-]*\s*=\s*(?:"[^"<]*"|'[^'<]*'|[^\s"'<>]+))*"""

TAG = re.compile(rf"<(/?)({BLOCKS}|{INLINES}|{OTHERS})({ATTRIBUTES})\s*/?>", re.I)
COMMENT = re.compile(r"<!--(?:(?!<!--).)*?-->|<!doctype[^<>]*>", re.S | re.I)
UNSEEN = re.compile(r"<(script|style|noscript)\b[^<>]*>.*?(?:</\1\s*>|\Z)", re.S | re.I)
SCRIPTS = re.compile(rf"<(sup|sub){ATTRIBUTES}\s*>([^<>]{{1,40}})</\1\s*>", re.I)
RAISED = str.maketrans("0123456789+-−=()n", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁼⁽⁾ⁿ")
LOWERED = str.maketrans("0123456789+-−=()", "₀₁₂₃₄₅₆₇₈₉₊₋₋₌₍₎")
PLAINLY_RAISED = {"st", "nd", "rd", "th", "®", "©", "™", "tm", "*", "†", "‡"}  # 5th, not 5^th
MARK = re.compile(r"\[.*\]|[^\w+\-−=()]+", re.S)  # the number of a note, "[2]", or a sign
BLOCK_NAME = re.compile(BLOCKS, re.I)
START = re.compile(r"""\bstart\s*=\s*["']?\s*(-?\d{1,9})""", re.I)
OTHER_TYPE = re.compile(
    r"""\btype\s*=\s*["']?\s*[^"'\s1]|\breversed\b""", re.I
)  # of a list with letters, or counted down
BREAKS = re.compile(r"\n[ \t]*\n\s*")


def strip_markup(text: str) -> str:
    """Turn text that clearly is HTML into plain text; return any other text unchanged.

    Clear signs are a line break or rule (`<br>`, `<hr>`), a tag with attributes, and a pair of tags. `x < y and z > w`,
    `List<a>`, `<unk>` and tags in code, indented lines or tables are not. Exponents and indices are preserved
    (10<sup>3</sup> becomes 10³).
    """
    if "<" not in text:
        if "&lt;" not in text:
            return text
        written = unescape(text)  # markup that was escaped once more
        return _strip(written) if _is_markup(written) else text
    return _strip(text) if _is_markup(text) else text


def _is_markup(text: str) -> bool:
    if not TAG.search(text):
        return False
    opened = set()
    for end, name, attributes in TAG.findall(KEPT.sub("", text)):
        name = name.lower()
        if attributes or name in {"br", "hr"} or (end and name in opened):
            return True
        if not end:
            opened.add(name)
    return False


def _strip(text: str) -> str:
    kept = CODE if text.lstrip().startswith("<") else KEPT  # the indented lines of a page are not code
    tags = _Tags()
    return change_outside(kept, text, lambda prose: _strip_prose(prose, tags)).strip()


def _strip_prose(text: str, tags: _Tags) -> str:
    text = UNSEEN.sub("", COMMENT.sub("", text))
    text = SCRIPTS.sub(lambda match: raise_or_lower(unescape(match[2]), raised=match[1].lower() == "sup"), text)
    return BREAKS.sub("\n\n", unescape(TAG.sub(tags.plain, text)))


class _Tags:
    """Turns the tags of a text into plain text, and counts the items of its lists."""

    def __init__(self) -> None:
        self._lists: list[int | None] = []  # the number of the next item of each open list; None: it has bullets

    def plain(self, match: re.Match[str]) -> str:
        """What stands in place of a tag."""
        end, name, attributes = match[1], match[2].lower(), match[3]
        if name == "br":
            return "\n"
        if name == "li":
            return "" if end else f"\n{self._label()} "
        if name in {"td", "th"}:
            return "\t" if end else ""
        if name == "tr":
            return "\n" if end else ""
        if name in {"ol", "ul"}:
            self._open_or_close(name, attributes, is_end=bool(end))
        return "\n\n" if name == "hr" or BLOCK_NAME.fullmatch(name) else ""

    def _open_or_close(self, name: str, attributes: str, *, is_end: bool) -> None:
        if is_end:
            self._lists = self._lists[:-1]
        else:
            start = START.search(attributes)
            has_numbers = name == "ol" and not OTHER_TYPE.search(attributes)
            self._lists.append((int(start[1]) if start else 1) if has_numbers else None)

    def _label(self) -> str:
        number = self._lists[-1] if self._lists else None
        if number is None:
            return "-"
        self._lists[-1] = number + 1
        return f"{number}."


def raise_or_lower(text: str, *, raised: bool) -> str:
    """The text of an exponent or index in plain characters: ³, ₂, ^x or _x; what reads well as it is stays."""
    inner = text.strip()
    if not inner or inner.lower() in PLAINLY_RAISED or MARK.fullmatch(inner):
        return inner
    written = inner.translate(RAISED if raised else LOWERED)
    if not set(written) & set(inner):
        return written
    return ("^" if raised else "_") + (inner if inner.isalnum() else f"({inner})")
