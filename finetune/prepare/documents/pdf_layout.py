"""The layout of a PDF: the edges of its pages, columns, paragraphs, and headings by size."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from finetune.prepare.documents.outline import table
from finetune.prepare.documents.pdf_page import PageContent, Piece
from finetune.prepare.documents.reflow import BULLET, Line
from finetune.prepare.documents.running import EDGE_LINES, EdgeLine

HEADING_SIZE = 1.07  # of the usual letter size: 12 against 11 points is the least that people use
HEADING_WORDS = 20
HEADING_LEVELS = 4
LINE_SPACING = 1.75  # of the letter size: wider than that are the gaps between paragraphs
USUAL_SPACING = 1.2
PARAGRAPH_GAP = 1.2  # of the usual distance between lines
LARGE = 1.5  # of the usual letter size: a number as large as that is a heading
FEW_STEPS = 3  # from line to line of a page, of which the usual one cannot be told
INDENT = 0.8  # of the letter size
COLUMN_LINES = 5  # lines on either side at least, to be columns
EDGE_STEP = 2  # points within which lines begin at one edge
EDGES_TRIED = 20  # most common places where lines begin
COLUMN_FILL = 0.55  # of a column's width, by its middle line: cells of a table without rules are shorter
ALIGNED = 4.0  # points between the edges of cells of one column
TWO_COLUMN_ROWS = 3  # at least, to be a table: a label and a value may stand apart by chance
SENTENCE_WORDS = 4  # of a cell: columns of text have more words in a line
ACROSS = 0.2  # of the lines may go across a gutter: titles, tables and figures over both columns


def edge_lines(content: PageContent) -> dict[Piece, list[EdgeLine]]:
    """The lines that may be a running head, a foot or a page number: the topmost and bottommost ones."""
    lines = [piece for piece in content.pieces if piece.size]
    heights = sorted({round(piece.base) for piece in lines}, reverse=True)
    steps = [above - below for above, below in pairwise(heights)]
    size = max(lines, key=lambda piece: len(piece.text)).size if lines else 0.0
    edges: dict[Piece, list[EdgeLine]] = defaultdict(list)
    for at_top, inwards, gaps in ((True, heights, steps), (False, heights[::-1], steps[::-1])):
        for piece in lines:
            if (height := round(piece.base)) in inwards[:EDGE_LINES]:
                level = inwards.index(height)
                usual = statistics.median_low(steps) if len(steps) > FEW_STEPS else USUAL_SPACING * piece.size
                apart = piece.size < LARGE * size and (level == len(gaps) or gaps[level] > PARAGRAPH_GAP * usual)
                place = content.height - piece.base if at_top else piece.base
                edges[piece].append(EdgeLine(piece.text, at_top, level, place, apart))
    return edges


@dataclass(frozen=True, slots=True)
class Headings:
    """The headings of a document: levels by letter size in half points, and the level of bold lines (0: none)."""

    by_size: Mapping[int, int]
    bold: int

    def level(self, piece: Piece) -> int:
        """The level of a line, 0 if it is not a heading."""
        if not piece.size or len(piece.text.split()) > HEADING_WORDS or piece.text[-1] in ".,;":
            return 0
        return self.by_size.get(_half_points(piece.size), self.bold if piece.bold else 0)


def headings_of(pieces: Sequence[Piece]) -> Headings:
    """Headings are larger than most of the text, the largest of level 1, or bold where most of it is not."""
    sizes: Counter[int] = Counter()
    bold = 0
    for piece in pieces:
        if piece.size:
            sizes[_half_points(piece.size)] += len(piece.text)
            bold += len(piece.text) if piece.bold else 0
    if not sizes:
        return Headings({}, 0)
    usual = max(sizes, key=lambda size: (sizes[size], -size))
    larger = sorted((size for size in sizes if size >= HEADING_SIZE * usual), reverse=True)
    levels = {size: min(position, HEADING_LEVELS) for position, size in enumerate(larger, 1)}
    few = 2 * bold < sizes.total()
    return Headings(levels, max(levels.values(), default=1) + 1 if few else 0)


def _half_points(size: float) -> int:
    return round(size * 2)


# --- in which order it is read ----------------------------------------------------------------------------------------


def columns_of(pieces: Sequence[Piece]) -> list[list[Piece]]:
    """The page as runs of lines in reading order: columns from left to right, separated by lines that span them.

    Without columns, the order of the file is kept, which comes from the program that wrote it.
    """
    gutter = _gutter(pieces)
    if gutter is None:
        return [list(pieces)] if pieces else []
    left: list[Piece] = []
    right: list[Piece] = []
    runs: list[list[Piece]] = []
    for piece in sorted(pieces, key=lambda piece: (-round(piece.base), piece.box[0])):
        if piece.box[2] <= gutter:
            left.append(piece)
        elif piece.box[0] >= gutter:
            right.append(piece)
        else:
            runs += [*columns_of(left), *columns_of(right), [piece]]
            left, right = [], []
    return runs + columns_of(left) + columns_of(right)


def _gutter(pieces: Sequence[Piece]) -> float | None:
    """The position between two columns that the fewest lines cross; None if there is none."""
    lines = [piece for piece in pieces if piece.size]
    if len(lines) < 2 * COLUMN_LINES:
        return None
    best: tuple[int, float] | None = None
    edges = Counter(EDGE_STEP * int(piece.box[0] // EDGE_STEP) for piece in lines)
    for position in sorted(position for position, _ in edges.most_common(EDGES_TRIED)):
        left = [piece for piece in lines if piece.box[2] <= position]
        right = [piece for piece in lines if piece.box[0] >= position]
        across = len(lines) - len(left) - len(right)
        if across > ACROSS * len(lines) or not _are_columns(left, right):
            continue
        if best is None or across < best[0]:
            best = across, position
    return best[1] if best else None


def _are_columns(left: Sequence[Piece], right: Sequence[Piece]) -> bool:
    if min(len(left), len(right)) < COLUMN_LINES:
        return False
    if min(piece.base for piece in left) > max(piece.base for piece in right):
        return False
    if min(piece.base for piece in right) > max(piece.base for piece in left):
        return False  # one above the other
    return _is_filled(left) and _is_filled(right)


def _is_filled(column: Sequence[Piece]) -> bool:
    width = max(piece.box[2] for piece in column) - min(piece.box[0] for piece in column)
    return statistics.median(piece.box[2] - piece.box[0] for piece in column) >= COLUMN_FILL * width


# --- tables without rules ---------------------------------------------------------------------------------------------


def _with_unruled_tables(run: Sequence[Piece]) -> list[Piece]:
    """The pieces, with rows of aligned cells as tables; two columns of sentences are read one after the other."""
    pieces: list[Piece] = []
    block: list[list[Piece]] = []
    for row in [*_rows(run), []]:
        if block and not _continues(block[0], row):
            pieces += _block(block)
            block = []
        block.append(row)
    return pieces


def _rows(run: Sequence[Piece]) -> list[list[Piece]]:
    """The pieces that stand side by side, from left to right."""
    rows: list[list[Piece]] = []
    for piece in run:
        last = rows[-1][-1] if rows else None
        if last and piece.size and last.box[2] < piece.box[0] and abs(last.base - piece.base) < 0.3 * piece.size:
            rows[-1].append(piece)
        else:
            rows.append([piece])
    return rows


def _continues(first: Sequence[Piece], row: Sequence[Piece]) -> bool:
    return len(row) > 1 and all(_column(cell, first) is not None for cell in row)


def _column(cell: Piece, first: Sequence[Piece]) -> int | None:
    """The number of the cell in the first row that begins or ends where the given cell does."""
    for number, head in enumerate(first):
        if abs(head.box[0] - cell.box[0]) < ALIGNED or abs(head.box[2] - cell.box[2]) < ALIGNED:
            return number
    return None


def _block(rows: Sequence[Sequence[Piece]]) -> list[Piece]:
    flat = [piece for row in rows for piece in row]
    width = len(rows[0])
    if width < 2 or len(rows) < (TWO_COLUMN_ROWS if width == 2 else 2):
        return flat
    if width == 2 and any(BULLET.match(f"{row[0].text} ") for row in rows):
        return flat
    columns = [[piece for piece in flat if _column(piece, rows[0]) == number] for number in range(width)]
    words = [statistics.median(len(piece.text.split()) for piece in column) for column in columns]
    if width == 2 and min(words) >= SENTENCE_WORDS:
        return [piece for column in columns for piece in column]
    cells = [[" ".join(piece.text for piece in row if piece in column) for column in columns] for row in rows]
    edges = [piece.box for piece in flat]
    left, bottom, right, top = (
        choose(edge) for choose, edge in zip((min, min, max, max), zip(*edges, strict=True), strict=True)
    )
    return [Piece(table(cells), (left, bottom, right, top), flat[0].base, 0.0)]


# --- lines and paragraphs ---------------------------------------------------------------------------------------------


def lines_of(run: Sequence[Piece], headings: Headings) -> list[Line]:
    """The lines of a column; empty lines separate paragraphs."""
    run = _with_unruled_tables(run)
    pitch = _pitch(run)
    margin = min((piece.box[0] for piece in run if piece.size), default=0.0)
    lines: list[Line] = []
    before: Piece | None = None
    for piece in run:
        line = Line(piece.text, headings.level(piece), fixed=not piece.size)
        if before is None:
            lines.append(line)
        elif line.fixed or lines[-1].fixed:
            lines += [Line(""), line]
        elif abs(before.base - piece.base) < 0.3 * piece.size:
            lines[-1] = replace(lines[-1], text=f"{lines[-1].text} {line.text}")  # words far apart
        elif line.level and line.level == lines[-1].level and 0 < before.base - piece.base < 1.6 * piece.size:
            lines[-1] = replace(line, text=f"{lines[-1].text} {line.text}")  # a heading of two lines
        elif _is_new(before, piece, pitch, margin):
            lines += [Line(""), line]
        else:
            lines.append(line)
        before = piece
    return lines


def _pitch(run: Sequence[Piece]) -> float:
    """The usual distance between the baselines of two lines of a paragraph, in points."""
    steps = [before.base - piece.base for before, piece in pairwise(run) if piece.size and before.size]
    size = max((piece.size for piece in run), default=0.0)
    near = [step for step in steps if 0.3 * size < step < LINE_SPACING * size]
    return statistics.median_low(near) if near else USUAL_SPACING * size


def _is_new(before: Piece, piece: Piece, pitch: float, margin: float) -> bool:
    """Whether a line begins a paragraph: after a gap, with a bullet, indented, or in another letter size."""
    step = before.base - piece.base
    if step > PARAGRAPH_GAP * pitch or step < 0 or BULLET.match(piece.text):
        return True
    if abs(before.size - piece.size) > 0.1 * max(before.size, piece.size):
        return True
    set_in = INDENT * piece.size
    return piece.box[0] > margin + set_in and before.box[0] < margin + 0.3 * set_in and not BULLET.match(before.text)
