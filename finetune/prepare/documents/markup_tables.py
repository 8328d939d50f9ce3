"""The rows and columns of tables in HTML, JATS, DocBook and TEI."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence

from lxml.etree import _Element as Element

from finetune.prepare.documents.elements import tag_of

ROWS = frozenset(("tr", "row"))
CELLS = frozenset(("td", "th", "entry", "cell"))
CAPTIONS = frozenset(("caption", "title"))
MAX_COLUMNS = 200  # of a table: more is a drawing made of cells
MAX_ROWS_OF_A_CELL = 65_534  # as in browsers


def cells_of(table: Element) -> list[list[Element]]:
    """The cells of a table, row by row."""
    return [list(_inner(row, CELLS)) for row in _inner(table, ROWS)]


def _inner(element: Element, tags: Collection[str]) -> Iterator[Element]:
    """The `tags` elements, also those inside others such as <tbody> or <form>."""
    for child in element:
        tag = tag_of(child)
        if tag in tags:
            yield child
        elif tag and tag not in CAPTIONS:
            yield from _inner(child, tags)


def has_stray_text(element: Element) -> bool:
    """Whether a table has text outside of its cells and captions."""
    if (element.text or "").strip():
        return True
    for child in element:
        inside = tag_of(child) and tag_of(child) not in CELLS | CAPTIONS
        if (child.tail or "").strip() or (inside and has_stray_text(child)):
            return True
    return False


def grid_of(rows: Sequence[Sequence[Element]], text_of: Callable[[Element], str]) -> list[list[str]]:
    """The texts of cells, each in its column; cut off after a row with more than MAX_COLUMNS.

    The text of a cell that covers several rows is repeated in each; beside one that covers several columns, the others
    are empty.
    """
    grid: list[list[str]] = []
    above: dict[int, tuple[int, str]] = {}  # column -> the number of rows that a cell covers still, and its text
    for cells in rows:
        row: list[str] = []
        below: dict[int, tuple[int, str]] = {}
        for cell in (*cells, None):
            while len(row) in above:
                rest, text = above[len(row)]
                if rest > 1:
                    below[len(row)] = (rest - 1, text)
                row.append(text)
            if cell is None or len(row) > MAX_COLUMNS:
                break
            width, height = min(_span(cell, "colspan") or 1, MAX_COLUMNS + 1), _height(cell)
            texts = [text_of(cell), *[""] * (width - 1)]
            if height > 1:
                below.update((len(row) + place, (height - 1, text)) for place, text in enumerate(texts))
            row += texts
        grid.append(row)
        if len(row) > MAX_COLUMNS:
            break
        above = below
    return grid


def _height(cell: Element) -> int:
    more = _span(cell, "morerows")  # of DocBook
    if more is not None:
        return more + 1
    return min(1 if (rows := _span(cell, "rowspan")) is None else rows or MAX_ROWS_OF_A_CELL, MAX_ROWS_OF_A_CELL)


def _span(cell: Element, name: str) -> int | None:
    value = cell.get(name, "").strip()[:6]
    return int(value) if value.isascii() and value.isdigit() else None
