"""The numbers of items and headings in OpenDocument texts, counted as LibreOffice counts them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import attribute, tag_of, whole_number
from finetune.prepare.documents.list_numbers import BULLET, LABEL, Level, count_item, number_form

Levels = Mapping[int, Level]


def label_items(body: Element, roots: Sequence[Element]) -> None:
    """Note the number of each item in its attribute LABEL, and write those of headings before their text.

    Args:
        body: changed in place.
        roots: the parts with the styles of lists, the most general one last.
    """
    styles = {
        attribute(style, "name"): _levels(style) for root in reversed(roots) for style in root.iter("{*}list-style")
    }
    known: dict[str, dict[int, int]] = {}  # the counts of lists by their ids, and of the last list of each style
    for outer in body.iter("{*}list"):
        if next(outer.iterancestors("{*}list"), None) is None:
            style = attribute(outer, "style-name")
            last = attribute(outer, "continue-list") or (
                style if attribute(outer, "continue-numbering") == "true" else ""
            )
            counts = known.get(last, {}) if last else {}
            known[attribute(outer, "id")] = known[style] = counts
            _label(outer, style, 0, counts, styles)
    outline = next((_levels(style) for root in roots for style in root.iter("{*}outline-style")), {})
    chapters: dict[int, int] = {}
    for heading in body.iter("{*}h"):
        place = whole_number(heading, "outline-level", 1) - 1
        label = count_item(chapters, outline, place) if place in outline else BULLET
        if label != BULLET:
            heading.text = f"{label} {heading.text or ''}"


def _label(element: Element, style: str, place: int, counts: dict[int, int], styles: Mapping[str, Levels]) -> None:
    levels = styles.get(style, {})
    for item in element.iterchildren("{*}list-item", "{*}list-header"):
        is_counted = tag_of(item) == "list-item" and len(item) and tag_of(item[0]) != "list" and place in levels
        if is_counted and attribute(item, "start-value"):
            counts[place] = whole_number(item, "start-value", 1) - 1
        item.set(LABEL, count_item(counts, levels, place) if is_counted else BULLET)
        for inner in item.iterchildren("{*}list"):
            _label(inner, attribute(inner, "style-name") or style, place + 1, counts, styles)


def _levels(style: Element) -> dict[int, Level]:
    """The levels of a list, from 0."""
    levels: dict[int, Level] = {}
    for element in style:
        place = whole_number(element, "level", 1) - 1
        form = number_form(attribute(element, "num-format")) or ""
        above = max(place + 1 - whole_number(element, "display-levels", 1), 0)
        number = ".".join(f"%{level + 1}" for level in range(above, place + 1))
        text = attribute(element, "num-prefix") + number + attribute(element, "num-suffix") if form else ""
        levels[place] = Level(form, text, whole_number(element, "start-value", 1), reset=place)
    return levels
