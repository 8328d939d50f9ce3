"""What stands before the items of lists: the numbers of ordered ones as pages show them, and "-" for others."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import tag_of

BULLET = "-"
LABEL = "data-list-label"  # what a reader has found before an item, such as "(b)"
ITEMS = frozenset(("li", "item", "list-item", "listitem"))
ORDERED = frozenset(("ol", "orderedlist"))
STARTS = ("start", "startingnumber")  # attributes of HTML and DocBook
FORM_NAMES = ("type", "list-type", "numeration", "rend")  # attributes of HTML, JATS, DocBook and TEI
FORMS = frozenset("1aAiI")
CSS_TYPE = re.compile(r"list-style(?:-type)?\s*:\s*([^;]*)", re.I)
BULLETED = re.compile(r"\b(?:none|disc|circle|square|bullet(?:ed)?|simple|unordered)\b", re.I)
NUMBERED = re.compile(r"(?P<roman>roman)|(?P<letters>alpha|latin|letter)|order|number|arabic|decimal", re.I)
UPPER = re.compile("upper|uc", re.I)
WHOLE = re.compile(r"\s*([+-]?\d{1,9})")
ROMAN = {
    1000: "m", 900: "cm", 500: "d", 400: "cd", 100: "c", 90: "xc", 50: "l", 40: "xl", 10: "x", 9: "ix", 5: "v", 4: "iv", 1: "i"
}  # fmt: skip
LARGEST_ROMAN = 3999
PLACE = re.compile(r"%(\d)")  # in the text of a level, for the number of a level, the first of which is 1


@dataclass(frozen=True, slots=True)
class Level:
    """A level of the lists of office programs: `text` is what it writes before an item, such as "%1.%2)"."""

    form: str  # of its numbers: 1, a, A, i, I, or "" for none
    text: str
    start: int
    reset: int  # an item of a level below this, counted from 0, begins it anew
    style: str = ""  # of the paragraphs that belong to it
    in_digits: bool = False  # whether the numbers of the levels above are in digits, too: "2.1" below "II"


def count_item(counts: dict[int, int], levels: Mapping[int, Level], place: int) -> str:
    """Count an item of a level, and return its number, "-" if it has none.

    The levels above that have no number yet begin, and those below begin anew.
    """
    for number, level in levels.items():
        if number > place and place < level.reset:
            counts.pop(number, None)
        elif number < place:
            counts.setdefault(number, level.start)
    counts[place] = counts[place] + 1 if place in counts else levels[place].start

    def written(match: re.Match[str]) -> str:
        number = int(match[1]) - 1
        form = levels[number].form if number in levels else ""
        return (
            write_number(counts[number], "1" if levels[place].in_digits else form) if form and number in counts else ""
        )

    return PLACE.sub(written, levels[place].text).strip() or BULLET


def labels_of(element: Element) -> Iterator[str]:
    """What stands before each child of a list: "-", or the number of an item of an ordered list and a point."""
    items = sum(1 for child in element if tag_of(child) in ITEMS)
    step = -1 if "reversed" in element.attrib else 1
    number = items if step < 0 else 1
    for name in STARTS:
        number = _whole(element, name, number)
    form = _form_of(element, "1" if tag_of(element) in ORDERED else "")
    for child in element:
        if tag_of(child) not in ITEMS:
            yield BULLET
            continue
        number = _whole(child, "value", number)
        own = _form_of(child, form) if form else ""
        yield child.get(LABEL) or (f"{write_number(number, own)}." if own else BULLET)
        number += step


def _form_of(element: Element, default: str) -> str:
    """The form of the numbers of a list or an item, "" for bullets."""
    style = CSS_TYPE.search(element.get("style", ""))
    names = [style[1]] if style else [element.get(name, "") for name in FORM_NAMES]
    return next((form for name in names if (form := number_form(name)) is not None), default)


def _whole(element: Element, name: str, default: int) -> int:
    match = WHOLE.match(element.get(name, ""))
    return int(match[1]) if match else default


def number_form(name: str) -> str | None:
    """The form 1, a, A, i or I that a name such as `lower-alpha`, `upperRoman` or `alphaUcPeriod` stands for.

    "" if it stands for a bullet, None if it is unknown.
    """
    if name in FORMS or BULLETED.search(name):
        return name if name in FORMS else ""
    kind = NUMBERED.search(name)
    if kind is None:
        return None
    form = "i" if kind["roman"] else "a" if kind["letters"] else "1"
    return form.upper() if UPPER.search(name) else form


def write_number(number: int, form: str) -> str:
    """A number in the form 1, a, A, i or I; in digits if the form has no number for it."""
    letters = ""
    if form in "aA" and number > 0:
        while number:
            number, place = divmod(number - 1, 26)
            letters = chr(ord("a") + place) + letters
    elif form in "iI" and 0 < number <= LARGEST_ROMAN:
        for value, sign in ROMAN.items():
            letters += sign * (number // value)
            number %= value
    else:
        return str(number)
    return letters.upper() if form.isupper() else letters
