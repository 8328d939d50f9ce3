"""The values of cells of Excel as text: numbers, dates and percentages as their format shows them, unrounded."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime, timedelta

from lxml.etree import _Element as Element

ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")  # a character that XML does not allow, ECMA-376 part 1, 22.9.2.19
LITERAL = re.compile(
    r'"[^"]*"|\\.|[_*].|\[(?![hms]+\])[^\]]*\]', re.I
)  # text, blanks, colours and conditions in a format
ELAPSED = re.compile(r"\[([hms])\1*\]", re.I)
FORMATS = {  # the formats that have numbers and no code in the file, as far as they matter here: ECMA-376 18.8.30
    **dict.fromkeys((9, 10), "0%"),
    **dict.fromkeys((*range(14, 18), *range(27, 32), *range(34, 37), *range(50, 59)), "yyyy-mm-dd"),
    **dict.fromkeys((18, 19, 20, 21, 32, 33, 45, 47), "h:mm:ss"),
    22: "yyyy-mm-dd h:mm",
    46: "[h]:mm:ss",
}
DIGITS = ".15g"  # as many as Excel keeps
LAST_DAY = 2_958_466  # 10000-01-01
ONE_DAY = 86_400  # seconds


class Styles:
    """The number formats of a workbook, by the style of a cell."""

    def __init__(self, root: Element | None, *, from_1904: bool) -> None:
        self.from_1904 = from_1904
        self._formats: list[str] = []
        if root is not None:
            own = {each.get("numFmtId", ""): each.get("formatCode", "") for each in root.iter("{*}numFmt")}
            self._formats = [_code(each.get("numFmtId", ""), own) for each in root.iterfind("{*}cellXfs/{*}xf")]

    def of(self, cell: Element) -> str:
        """The format of a cell, without literal text."""
        number = cell.get("s", "0")
        place = int(number) if number.isdecimal() else 0
        return self._formats[place] if place < len(self._formats) else ""


def plain_text(element: Element) -> str:
    """The text of a string, without the readings of its characters."""
    pieces = (*element.iterfind("{*}t"), *element.iterfind("{*}r/{*}t"))
    return ESCAPED.sub(lambda match: chr(int(match[1], 16)), "".join(piece.text or "" for piece in pieces))


def value_of(cell: Element, kind: str, raw: str | None, styles: Styles) -> str:
    """The value of a cell that is not a shared string."""
    if kind == "inlineStr":
        inside = cell.find("{*}is")
        return "" if inside is None else plain_text(inside)
    text = raw or ""
    if kind == "b":
        return "TRUE" if text == "1" else "FALSE"
    if kind == "d":
        return text.removesuffix("T00:00:00").replace("T", " ")
    if kind == "str":
        return ESCAPED.sub(lambda match: chr(int(match[1], 16)), text)
    try:
        number = float(text)
    except ValueError:
        return text
    return _number(number, text, styles.of(cell), styles.from_1904)


def _code(number: str, own: Mapping[str, str]) -> str:
    code = own.get(number) or FORMATS.get(int(number) if number.isdecimal() else 0, "")
    return "" if code.lower() == "general" else LITERAL.sub("", code).partition(";")[0].lower()


def _number(number: float, text: str, code: str, from_1904: bool) -> str:
    if ELAPSED.search(code):
        minutes, seconds = divmod(round(number * ONE_DAY), 60)
        return f"{minutes // 60}:{minutes % 60:02}:{seconds:02}"
    if re.search("[ymdhs]", code) and 0 <= number < LAST_DAY:
        return _date(number, code, from_1904)
    if code.endswith("%"):
        return f"{number * 100:{DIGITS}}%"
    if text.lstrip("-").isdecimal():
        return text.zfill(len(code)) if code and not code.strip("0") else text
    return f"{number:{DIGITS}}"


def _date(number: float, code: str, from_1904: bool) -> str:
    """A date, a time or both, as ISO 8601 writes them; the count of days takes 1900 for a leap year."""
    has_time = re.search("[hs]", code) is not None
    has_date = re.search("[yd]", code) is not None or not has_time
    start = datetime(1904, 1, 1) if from_1904 else datetime(1899, 12, 31 if number < 60 else 30)
    moment = start + timedelta(seconds=round(number * ONE_DAY))
    time = moment.strftime("%H:%M:%S")
    if not has_date and number < 1:
        return time
    return moment.date().isoformat() if time == "00:00:00" or not has_time else f"{moment.date().isoformat()} {time}"
