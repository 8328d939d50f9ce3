"""The numbers of paragraphs in Word documents, counted as Word counts them: mammoth only tells numbers from bullets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import attribute, whole_number
from finetune.prepare.documents.list_numbers import Level, count_item, number_form


@dataclass(frozen=True, slots=True)
class NumberedList:
    """A list; those of one `kind` share their counts, but the `anew` levels of a list begin with it."""

    kind: str
    levels: Mapping[int, Level]
    anew: frozenset[int]


class Membership(NamedTuple):
    """The list and the level that a paragraph or its style belongs to, "" where it does not say."""

    name: str
    level: str


NOWHERE = Membership("", "")


class Numbering:
    """Counts the paragraphs of a document, given the parts with its lists and those with its styles."""

    def __init__(self, numbering: Sequence[Element], styles: Sequence[Element]) -> None:
        self._styles = {
            attribute(style, "styleId"): (_membership(style.find("{*}pPr")), _value(style, "basedOn"))
            for root in reversed(styles)  # the first part with a style decides
            for style in root.iterfind("{*}style")
        }
        self._kinds = {
            attribute(kind, "abstractNumId"): kind for root in numbering for kind in root.iterfind("{*}abstractNum")
        }
        self._nums = {attribute(num, "numId"): num for root in numbering for num in root.iterfind("{*}num")}
        self._lists: dict[str, NumberedList | None] = {}  # those that were asked for: some files have thousands
        self._counts: dict[str, dict[int, int]] = {}  # of each kind of list, by level
        self._begun: set[str] = set()

    def label(self, paragraph: Element) -> str:
        """What stands before the next paragraph: its number, "-" if it is an item without one, "" if it is not an item."""
        properties = paragraph.find("{*}pPr")
        if properties is None or properties.find("{*}rPr/{*}del") is not None:  # the paragraph is deleted
            return ""
        style = _value(properties, "pStyle")
        memberships = [_membership(properties), *self._memberships_of(style)]
        name = next((each.name for each in memberships if each.name), "")
        if name not in self._lists:
            self._lists[name] = self._read(name)
        found = self._lists[name]
        if found is None:
            return ""
        usual = next((place for place, level in found.levels.items() if level.style == style), 0)
        place = next((int(each.level) for each in memberships if each.level.isdecimal()), usual)
        if place not in found.levels:
            return ""
        counts = self._counts.setdefault(found.kind, {})
        if name not in self._begun:
            self._begun.add(name)
            for anew in found.anew:
                counts.pop(anew, None)
        return count_item(counts, found.levels, place)

    def _read(self, name: str) -> NumberedList | None:
        num = self._nums.get(name)
        kind = None if num is None else self._kinds.get(_value(num, "abstractNumId"))
        style = "" if kind is None else _value(kind, "numStyleLink")
        if style in self._styles:  # the levels are those of the style's list
            num = self._nums.get(self._styles[style][0].name)
            kind = None if num is None else self._kinds.get(_value(num, "abstractNumId"))
        return None if num is None or kind is None else _list(num, kind)

    def _memberships_of(self, style: str) -> Iterator[Membership]:
        """What a style and those that it is based on say."""
        seen: set[str] = set()
        while style in self._styles and style not in seen:
            seen.add(style)
            membership, style = self._styles[style]
            yield membership


def _list(num: Element, kind: Element) -> NumberedList:
    levels = dict(map(_level, [*kind.iterfind("{*}lvl"), *num.iterfind("{*}lvlOverride/{*}lvl")]))
    anew: set[int] = set()
    for override in num.iterfind("{*}lvlOverride"):
        place, start = whole_number(override, "ilvl", 0), _number(override, "startOverride", -1)
        if start >= 0 and place in levels:
            levels[place] = replace(levels[place], start=start)
            anew.add(place)
    return NumberedList(attribute(kind, "abstractNumId"), levels, frozenset(anew))


def _level(element: Element) -> tuple[int, Level]:
    place, name = whole_number(element, "ilvl", 0), _value(element, "numFmt")
    form = number_form(name)
    return place, Level(
        form="1" if form is None else form,
        text="" if name == "bullet" else _value(element, "lvlText"),
        start=_number(element, "start", 1),
        reset=_number(element, "lvlRestart", place),
        style=_value(element, "pStyle"),
        in_digits=element.find("{*}isLgl") is not None,
    )


def _membership(properties: Element | None) -> Membership:
    """What the properties of a paragraph or style say."""
    own = None if properties is None else properties.find("{*}numPr")
    return NOWHERE if own is None else Membership(_value(own, "numId"), _value(own, "ilvl"))


def _value(element: Element, path: str) -> str:
    """The value of the first element on a path, "" if there is none."""
    return next((attribute(each, "val") for each in element.iterfind(f"{{*}}{path}")), "")


def _number(element: Element, path: str, default: int) -> int:
    return next((whole_number(each, "val", default) for each in element.iterfind(f"{{*}}{path}")), default)
