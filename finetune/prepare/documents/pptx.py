"""PowerPoint presentations (.pptx): slides in order, their titles as headings, then their text, tables and speaker notes.

With lxml: python-pptx (MIT; no release since 2024) passes over equations, hidden slides and alternate drawings, and leaves
the walk over shapes to its user, which is most of the work.
"""

from __future__ import annotations

from collections.abc import Iterator

from lxml.etree import _Element as Element

from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.elements import tag_of, whole_number
from finetune.prepare.documents.list_numbers import BULLET, Level, count_item, number_form
from finetune.prepare.documents.omml import latex
from finetune.prepare.documents.outline import Outline, in_lines, one_line, table
from finetune.prepare.formats.zip_package import ZipPackage, open_package
from finetune.records import Document

TITLES = {"ctrTitle": 1, "title": 2}  # kinds of placeholders, and the levels of their headings
MARGINS = {"ftr": "footer", "hdr": "header", "dt": "date", "sldNum": "slide number"}
MARKS = {"ParenBoth": "(%)", "ParenR": "%)", "Plain": "%"}  # around numbers, by the end of the name of their kind
BULLETED = frozenset(("body", "obj"))
GRAPHICS = {"chart": "chart", "chartex": "chart", "diagram": "diagram", "ole": "embedded object"}


def read(data: bytes, shown: str) -> Document:
    """The text of all slides but hidden ones; the title is that of the only title slide.

    Raises:
        Unusable: it is damaged, is protected by a password, or has no text.
    """
    outline = Outline()
    with open_package(data, "pptx") as parts:
        main = parts.main_part()
        targets = parts.targets(main)
        for slide in parts.root(main).iterfind("{*}sldIdLst/{*}sldId"):
            name = next((str(value) for key, value in slide.items() if str(key).endswith("}id")), "")
            if name in targets:
                _add_slide(parts, targets[name].name, outline)
    return outline.document()


def _add_slide(parts: ZipPackage, name: str, outline: Outline) -> None:
    root = parts.root(name)
    if root.get("show") in {"0", "false"}:
        outline.unused["hidden slide"] += 1
        return
    _Shapes(outline).add(root)
    for target in parts.targets(name).values():
        if target.kind == "notesSlide":
            _Shapes(outline, of_notes=True).add(parts.root(target.name))
        elif target.kind == "comments":
            outline.unused["comment"] += sum(1 for _ in parts.root(target.name).iter("{*}cm"))


class _Shapes:
    """Adds the shapes of a slide, or those of its notes page that are not the slide's."""

    def __init__(self, outline: Outline, *, of_notes: bool = False) -> None:
        self._outline, self._of_notes = outline, of_notes

    def add(self, root: Element) -> None:
        """Add the title, then all other shapes from the lowest layer to the highest."""
        for fallback in list(root.iterfind(".//{*}AlternateContent/{*}Fallback")):
            fallback.clear()
        shapes = root.iter("{*}sp", "{*}graphicFrame", "{*}pic", "{*}cxnSp")
        for shape in sorted(shapes, key=lambda each: _placeholder(each) not in TITLES):
            self._add_shape(shape)

    def _add_shape(self, shape: Element) -> None:
        kind, tag = _placeholder(shape), tag_of(shape)
        paragraphs = list(shape.iterfind("{*}txBody/{*}p"))
        if tag == "pic":
            self._outline.unused["picture"] += 1
        elif tag == "graphicframe":
            self._add_graphic(shape)
        elif kind in MARGINS:
            self._outline.unused[MARGINS[kind]] += any(map(_text, paragraphs))
        elif kind in TITLES and not self._of_notes:
            self._outline.heading(" ".join(map(_text, paragraphs)), TITLES[kind])
        else:
            self._add_paragraphs(paragraphs, bulleted=kind in BULLETED and not self._of_notes)

    def _add_graphic(self, frame: Element) -> None:
        grids = list(frame.iterfind("{*}graphic/{*}graphicData/{*}tbl"))
        for grid in grids:
            self._outline.block(_table(grid))
        for graphic in frame.iter("{*}graphicData") if not grids else ():
            name = graphic.get("uri", "").rpartition("/")[2].lower()
            self._outline.unused[GRAPHICS.get(name, "graphic")] += 1

    def _add_paragraphs(self, paragraphs: list[Element], *, bulleted: bool) -> None:
        """Add paragraphs, those with bullets in a row as one list."""
        filled = [each for each in paragraphs if _text(each)]
        items: list[str] = []
        numbers = _Numbers()
        widths: dict[int, int] = {}  # of what stands before the items of each level
        for each in filled:
            label, depth = numbers.label(each), _depth(each)
            if not label and bulleted and len(filled) > 1 and each.find("{*}pPr/{*}buNone") is None:
                label = BULLET
            if label:
                margin = sum(widths.get(above, 2) for above in range(depth))
                items.append(f"{' ' * margin}{label} {one_line(_text(each))}")
                widths[depth] = len(label) + 1
                continue
            self._outline.block("\n".join(items))
            self._outline.block(_text(each))
            items, widths = [], {}
        self._outline.block("\n".join(items))


class _Numbers:
    """Counts the numbered paragraphs of a shape: an item goes on from the last of its level and kind."""

    def __init__(self) -> None:
        self._levels: dict[int, Level] = {}
        self._counts: dict[int, int] = {}

    def label(self, paragraph: Element) -> str:
        """The number or bullet of the next paragraph, "" if it has none of its own."""
        depth, number = _depth(paragraph), paragraph.find("{*}pPr/{*}buAutoNum")
        level = None if number is None else _level(number, depth)
        self._levels = {place: each for place, each in self._levels.items() if place <= depth}
        if self._levels.get(depth) != level:
            self._levels.pop(depth, None)
            self._counts.pop(depth, None)
        if level is None:
            return "" if paragraph.find("{*}pPr/{*}buChar") is None else BULLET
        self._levels[depth] = level
        return count_item(self._counts, self._levels, depth)


def _level(number: Element, depth: int) -> Level:
    kind = number.get("type", "")
    mark = next((mark for ending, mark in MARKS.items() if kind.endswith(ending)), "%.")
    text = mark.replace("%", f"%{depth + 1}")
    return Level(number_form(kind) or "1", text, whole_number(number, "startAt", 1), reset=depth)


def _placeholder(shape: Element) -> str:
    """The kind of a placeholder; "" for other shapes."""
    place = shape.find("{*}nvSpPr/{*}nvPr/{*}ph")
    return "" if place is None else place.get("type", "obj")


def _depth(paragraph: Element) -> int:
    properties = paragraph.find("{*}pPr")
    level = "0" if properties is None else properties.get("lvl", "0")
    return min(int(level), 8) if level.isdecimal() else 0


def _table(grid: Element) -> str:
    """A table; the text of a cell over several rows is repeated in each."""
    rows: list[list[str]] = []
    for row in grid.iterfind("{*}tr"):
        above = rows[-1] if rows else []
        cells = enumerate(row.iterfind("{*}tc"))
        rows.append([above[n] if cell.get("vMerge") and n < len(above) else _cell_text(cell) for n, cell in cells])
    return table(rows) if rows else ""


def _cell_text(cell: Element) -> str:
    return " ".join(_text(each) for each in cell.iterfind("{*}txBody/{*}p"))


def _text(paragraph: Element) -> str:
    return in_lines("".join(_pieces(paragraph)))


def _pieces(element: Element) -> Iterator[str]:
    """The pieces of a paragraph; "\\v" marks a line break."""
    for child in element:
        tag = tag_of(child)
        if tag in {"r", "fld"}:
            yield _run(child)
        elif tag == "br":
            yield "\v"
        elif tag == "omath":
            yield latex(child)
        elif tag not in {"ppr", "endpararpr"}:
            yield from _pieces(child)


def _run(run: Element) -> str:
    text = (run.findtext("{*}t") or "").replace("\v", " ")
    properties = run.find("{*}rPr")
    raised = "0" if properties is None else properties.get("baseline", "0")
    return text if raised.strip("-0%") == "" else raise_or_lower(text, raised=not raised.startswith("-"))
