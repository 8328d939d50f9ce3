"""Reads the tables of a PDF whose cells are drawn with rules."""

from __future__ import annotations

import ctypes
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from finetune.prepare.documents.pdf_fields import Box, Field, is_inside
from finetune.prepare.documents.reflow import join_lines

NEAR = 3.0  # points: rules that meet are drawn as far apart as this
MIN_RULE = 8.0  # points: shorter ones are parts of signs and pictures
MAX_RULES = 1500  # on a page: more are a drawing, and comparing each with each takes too long
MAX_GRID = 300  # rows or columns of a table
SCANNED_SHARE = 0.5  # of a page that its pictures cover: text on it that is invisible was recognised in them
FILLED = 0.5  # of the cells: the grid of a chart is nearly empty
BROKEN = re.compile("[\x02\xad\ufffe]\\s*")  # what PDFium writes for a hyphen and the line end after it


@dataclass(frozen=True, slots=True)
class Drawing:
    """The rules of a page (of a drawing, the first ones), the number of its pictures, and whether they cover the page."""

    rules: list[Box]
    pictures: int
    is_scan: bool


@dataclass(frozen=True, slots=True)
class RuledTable:
    """The position of a table and the texts of its cells, row by row."""

    box: Box
    rows: tuple[tuple[str, ...], ...]


def drawing_of(page: pdfium.PdfPage) -> Drawing:
    """The rules and pictures of a page."""
    rules: list[Box] = []
    areas: list[float] = []
    for item in page.get_objects(filter=[raw.FPDF_PAGEOBJ_PATH, raw.FPDF_PAGEOBJ_IMAGE]):
        if item.type == raw.FPDF_PAGEOBJ_IMAGE:
            areas.append(_area(item))
        elif len(rules) <= MAX_RULES:
            rules += _rules(item)
    return Drawing(rules, len(areas), sum(areas) >= SCANNED_SHARE * page.get_width() * page.get_height() > 0)


def _area(picture: pdfium.PdfObject) -> float:
    try:
        left, bottom, right, top = picture.get_bounds()
    except pdfium.PdfiumError:
        return 0.0  # it is damaged and not drawn
    return float((right - left) * (top - bottom))


def ruled_tables(rules: Sequence[Box], textpage: pdfium.PdfTextPage, fields: Sequence[Field]) -> list[RuledTable]:
    """The tables of a page that have at least two rows and two columns drawn, with the values of fields in them."""
    if not 4 <= len(rules) <= MAX_RULES:
        return []
    candidates = (_table(textpage, group, fields) for group in _groups(rules))
    return [table for table in candidates if table is not None]


def _rules(item: pdfium.PdfObject) -> Iterator[Box]:
    """Straight lines along the edges of the page, as boxes without area; sides of rectangles as well."""
    matrix = item.get_matrix()
    points: list[tuple[float, float]] = []
    start = (0.0, 0.0)
    for number in range(min(raw.FPDFPath_CountSegments(item), MAX_RULES)):
        segment = raw.FPDFPath_GetPathSegment(item, number)
        across, down = ctypes.c_float(), ctypes.c_float()
        raw.FPDFPathSegment_GetPoint(segment, across, down)
        point = matrix.on_point(across.value, down.value)
        kind = raw.FPDFPathSegment_GetType(segment)
        if kind == raw.FPDF_SEGMENT_MOVETO:
            points, start = [point], point
        elif kind == raw.FPDF_SEGMENT_LINETO:
            points.append(point)
        else:
            points = [point]  # a curve
        ends = [*points[-2:], start] if raw.FPDFPathSegment_GetClose(segment) else points[-2:]
        yield from filter(None, (_rule(*pair) for pair in pairwise(ends)))


def _rule(one: tuple[float, float], other: tuple[float, float]) -> Box | None:
    wide, high = abs(one[0] - other[0]), abs(one[1] - other[1])
    if min(wide, high) > 1 or max(wide, high) < MIN_RULE:
        return None
    return min(one[0], other[0]), min(one[1], other[1]), max(one[0], other[0]), max(one[1], other[1])


def _groups(rules: Sequence[Box]) -> list[list[Box]]:
    """Rules that touch each other, directly or through others."""
    parent = list(range(len(rules)))

    def root(number: int) -> int:
        while parent[number] != number:
            parent[number] = parent[parent[number]]
            number = parent[number]
        return number

    for number, rule in enumerate(rules):
        for other in range(number):
            if _touch(rule, rules[other]):
                parent[root(number)] = root(other)
    groups: dict[int, list[Box]] = {}
    for number, rule in enumerate(rules):
        groups.setdefault(root(number), []).append(rule)
    return list(groups.values())


def _touch(one: Box, other: Box) -> bool:
    return (
        one[0] <= other[2] + NEAR
        and other[0] <= one[2] + NEAR
        and one[1] <= other[3] + NEAR
        and other[1] <= one[3] + NEAR
    )


def _table(textpage: pdfium.PdfTextPage, rules: Sequence[Box], fields: Sequence[Field]) -> RuledTable | None:
    across = _places(rule[0] for rule in rules if rule[2] - rule[0] < rule[3] - rule[1])
    down = _places(rule[1] for rule in rules if rule[2] - rule[0] >= rule[3] - rule[1])[::-1]
    if not (3 <= len(across) <= MAX_GRID and 3 <= len(down) <= MAX_GRID):
        return None
    cells = [
        [_cell(textpage, (left, bottom, right, top), fields) for left, right in pairwise(across)]
        for top, bottom in pairwise(down)
    ]
    used = [position for position in range(len(across) - 1) if any(row[position] for row in cells)]
    rows = tuple(tuple(row[position] for position in used) for row in cells if any(row))
    filled = sum(1 for row in rows for text in row if text)
    if len(rows) < 2 or len(used) < 2 or filled < FILLED * len(rows) * len(used):
        return None
    return RuledTable((across[0] - NEAR, down[-1] - NEAR, across[-1] + NEAR, down[0] + NEAR), rows)


def _places(values: Iterator[float]) -> list[float]:
    """The values in order, with nearby ones merged."""
    positions: list[float] = []
    for value in sorted(values):
        if not positions or value - positions[-1] > NEAR:
            positions.append(value)
    return positions


def _cell(textpage: pdfium.PdfTextPage, box: Box, fields: Sequence[Field]) -> str:
    lines = map(str.strip, BROKEN.sub("-\n", textpage.get_text_bounded(*box)).splitlines())
    values = [field.text for field in fields if is_inside(field.box, box)]
    return " ".join([join_lines(list(filter(None, lines))), *values]).strip()
