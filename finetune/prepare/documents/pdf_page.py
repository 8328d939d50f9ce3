"""What is on a page of a PDF: lines of text with position and size, ruled tables and the values of form fields."""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.outline import table
from finetune.prepare.documents.pdf_fields import Box, Field, fields_of, is_inside
from finetune.prepare.documents.pdf_tables import RuledTable, drawing_of, ruled_tables

MAX_RUNS = 4000  # of text on a page: a newspaper has 1,000; PDFium looks up each in time that grows with all of them
JOIN_GAP = 0.8  # of the letter size: runs of one line that stand as close as that are one text; a gutter is wider
BLANK_GAP = 0.15  # of the letter size: half of a narrow blank
SMALL = 0.85  # of the letter size: exponents and indices are about two thirds
SHIFT = (0.08, 0.8)  # of the letter size, by which exponents are raised and indices lowered
SCRIPT = re.compile(r"[\d+−-]{1,4}")  # raised or lowered without being smaller
SCRIPT_SHIFT = 0.25  # of the letter size: less is a crooked line
LONGEST_MARK = 3  # signs before a line: the raised number of a footnote
SLANT = 0.1  # of the sine of twice the angle: type at an angle across the page is a watermark
SCANNED = "page that is a picture"
FONT_NAME = 128  # bytes
BOLD = re.compile(rb"bold|black|heavy|demi", re.I)
LINE_HYPHEN = re.compile("[\x02\xad\ufffe]\\s*$")


@dataclass(frozen=True, slots=True)
class Piece:
    """A line of text or a table, its box and baseline in points, and the size of its letters (0 for a table)."""

    text: str
    box: Box
    base: float
    size: float
    bold: bool = False


@dataclass(frozen=True, slots=True)
class PageContent:
    """The pieces of a page in the order of the file, its height in points, and what else it has, by name."""

    pieces: list[Piece]
    height: float
    unused: Counter[str]


def read_page(page: pdfium.PdfPage, form: pdfium.PdfFormEnv | None) -> PageContent:
    """The lines of a page, with ruled tables in place of the lines inside them and values of fields at their labels."""
    fields, unused = fields_of(page, form)
    drawing = drawing_of(page)
    textpage = page.get_textpage()
    try:
        if textpage.count_rects() > MAX_RUNS:
            pieces, tables = _plain_lines(textpage), []
        else:
            pieces = list(_lines(textpage, unused, scanned=drawing.is_scan))
            tables = ruled_tables(drawing.rules, textpage, fields) if pieces else []
    finally:
        textpage.close()
    if drawing.pictures:
        unused["picture" if pieces or fields else SCANNED] += drawing.pictures if pieces or fields else 1
    pieces = _with_tables(pieces, tables)
    for field in fields:
        if not any(is_inside(field.box, each.box) for each in tables):
            _add_field(pieces, field)
    return PageContent(pieces, page.get_height(), unused)


def _with_tables(lines: Sequence[Piece], ruled: Sequence[RuledTable]) -> list[Piece]:
    tables = [Piece(table(each.rows), each.box, each.box[3], 0.0) for each in ruled]
    pieces: list[Piece] = []
    placed: set[int] = set()
    for line in lines:
        position = next((number for number, each in enumerate(tables) if is_inside(line.box, each.box)), None)
        if position is None:
            pieces.append(line)
        elif position not in placed:
            placed.add(position)
            pieces.append(tables[position])
    for position, each in enumerate(tables):
        if position not in placed:  # nothing is printed in it, but its fields have values
            _insert(pieces, each)
    return pieces


def _insert(pieces: list[Piece], piece: Piece) -> None:
    """Add a piece below the lowest of those that are above it."""
    above = [place for place, other in enumerate(pieces) if other.base > piece.box[3]]
    pieces.insert(min(above, key=lambda place: pieces[place].base, default=-1) + 1, piece)


def _add_field(pieces: list[Piece], field: Field) -> None:
    """Add the value of a field to its label: the line to the left of it, or of a box also to the right."""
    left, bottom, right, top = field.box
    row = [piece for piece in pieces if piece.size and bottom <= (piece.box[1] + piece.box[3]) / 2 <= top]
    before = max((piece for piece in row if piece.box[0] < left), key=lambda piece: piece.box[2], default=None)
    after = min((piece for piece in row if piece.box[0] >= left), key=lambda piece: piece.box[0], default=None)
    if field.is_box and after and (before is None or after.box[0] - right < left - before.box[2]):
        pieces[pieces.index(after)] = replace(after, text=f"{field.text} {after.text}")
    elif before:
        box = (before.box[0], before.box[1], max(before.box[2], right), before.box[3])
        pieces[pieces.index(before)] = replace(before, text=f"{before.text} {field.text}", box=box)
    else:
        size = min(top - bottom, 12.0)  # points
        _insert(pieces, Piece(field.text, field.box, bottom + size / 4, size))


def _plain_lines(textpage: pdfium.PdfTextPage) -> list[Piece]:
    """The lines of a page without positions, as if each were below the other."""
    lines = [" ".join(line.split()) for line in textpage.get_text_bounded().splitlines()]
    usual = 10.0  # points
    return [
        Piece(line, (0.0, -position * usual, usual, (1 - position) * usual), -position * usual, usual)
        for position, line in enumerate(lines)
        if line
    ]


# --- runs of text -----------------------------------------------------------------------------------------------------


def _lines(textpage: pdfium.PdfTextPage, unused: Counter[str], *, scanned: bool) -> Iterator[Piece]:
    """PDFium's runs of text; consecutive runs on a line are joined. On a `scanned` page, invisible text is its text."""
    last: Piece | None = None
    for box, text in _runs(textpage):
        if not text.strip():
            continue
        letter = _first_letter(textpage, box)
        reason = _reason_to_omit(textpage, letter, scanned=scanned) if letter is not None else ""
        if reason:
            unused[reason] += 1
            continue
        run = Piece(text, box, *_type_of(textpage, letter, box))
        joined = _join(last, run) if last is not None else None
        if last is not None and joined is None:
            yield _clean(last)
        last = joined or run
    if last is not None:
        yield _clean(last)


def _runs(textpage: pdfium.PdfTextPage) -> Iterator[tuple[Box, str]]:
    """The boxes of PDFium's runs with their texts.

    PDFium finds the text of a box fast, but takes everything that touches it for that, such as exponents of the next line.
    """
    boxes = [textpage.get_rect(number) for number in range(textpage.count_rects())]
    texts = _texts_by_letter(textpage, boxes) if _overlap(boxes) else None
    for number, box in enumerate(boxes):
        yield box, textpage.get_text_bounded(*box) if texts is None else texts[number]


def _overlap(boxes: Sequence[Box]) -> bool:
    """Whether any two boxes share more than their margins."""
    rising = sorted(boxes, key=lambda box: box[1])
    for number, box in enumerate(rising):
        for other in islice(rising, number + 1, None):
            if other[1] >= box[3]:
                break
            if min(box[2], other[2]) - max(box[0], other[0]) > 1:
                return True
    return False


def _texts_by_letter(textpage: pdfium.PdfTextPage, boxes: Sequence[Box]) -> list[str] | None:
    """The texts of runs, letter by letter, since runs have the order of letters; None if a letter fits in no box."""
    texts: list[list[str]] = [[] for _ in boxes]
    number = 0
    for index in range(textpage.count_chars()):
        letter = chr(raw.FPDFText_GetUnicode(textpage, index))
        if not letter.isspace():
            place = textpage.get_charbox(index)
            while number < len(boxes) and not is_inside(place, boxes[number]):
                number += 1
        if number == len(boxes):
            return None
        texts[number].append(letter)
    return ["".join(letters).encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for letters in texts]


def _clean(line: Piece) -> Piece:
    return replace(line, text=" ".join(LINE_HYPHEN.sub("-", line.text).split()))


def _join(last: Piece, run: Piece) -> Piece | None:
    """Two runs as one, if the second continues the line of the first, perhaps raised or lowered; else None."""
    size, gap, shift = max(run.size, last.size), run.box[0] - last.box[2], run.base - last.base
    if not -0.5 * size < gap < JOIN_GAP * size:
        return None
    box = (last.box[0], min(last.box[1], run.box[1]), run.box[2], max(last.box[3], run.box[3]))
    if _is_script(run, last, shift):
        return replace(last, text=last.text + _script(run.text, shift), box=box)
    if len(last.text.strip()) <= LONGEST_MARK and _is_script(last, run, -shift):
        return replace(run, text=_script(last.text, -shift) + run.text, box=box)
    if abs(shift) >= 0.3 * run.size:
        return None
    blank = " " if gap > BLANK_GAP * run.size else ""
    text = LINE_HYPHEN.sub("-", last.text) + blank + run.text
    return Piece(text, box, last.base, size, run.bold and last.bold)


def _is_script(run: Piece, line: Piece, shift: float) -> bool:
    """Whether a run is an exponent or index in a line, by its size and by how far it is raised."""
    if not SHIFT[0] * line.size < abs(shift) < SHIFT[1] * line.size:
        return False
    if run.size <= SMALL * line.size:
        return True
    return abs(shift) > SCRIPT_SHIFT * line.size and SCRIPT.fullmatch(run.text.strip()) is not None


def _script(text: str, shift: float) -> str:
    """A raised or lowered text in plain characters, with the blanks around it."""
    inner = text.strip()
    return text.replace(inner, raise_or_lower(inner, raised=shift > 0)) if inner else text


def _first_letter(textpage: pdfium.PdfTextPage, box: Box) -> int | None:
    """The index of the first visible character of a run."""
    middle, height, last = (box[1] + box[3]) / 2, box[3] - box[1], textpage.count_chars() - 1
    index: int | None = textpage.get_index(box[0] + 1, middle, 4, 4)
    if index is None:
        index = textpage.get_index(box[0] + height / 2, middle, height, height)
    while index is not None and not _is_letter_of(textpage, index, box):
        index = index + 1 if index < last else None
    return index


def _is_letter_of(textpage: pdfium.PdfTextPage, index: int, box: Box) -> bool:
    return textpage.get_charbox(index)[0] > box[0] - 1 and not chr(raw.FPDFText_GetUnicode(textpage, index)).isspace()


def _reason_to_omit(textpage: pdfium.PdfTextPage, letter: int, *, scanned: bool) -> str:
    """Why a run is not text of the page; "" if it is."""
    if abs(math.sin(2 * raw.FPDFText_GetCharAngle(textpage, letter))) > SLANT:
        return "watermark"
    if scanned:
        return ""
    item = raw.FPDFText_GetTextObject(textpage, letter)
    invisible = item and raw.FPDFTextObj_GetTextRenderMode(item) == raw.FPDF_TEXTRENDERMODE_INVISIBLE
    return "invisible text" if invisible else ""


def _type_of(textpage: pdfium.PdfTextPage, letter: int | None, box: Box) -> tuple[float, float, bool]:
    """The baseline, the letter size and whether the type is bold, at the beginning of a run."""
    across, down = ctypes.c_double(), ctypes.c_double()
    if letter is None or not raw.FPDFText_GetCharOrigin(textpage, letter, across, down):
        return box[1], box[3] - box[1], False
    name, flags = ctypes.create_string_buffer(FONT_NAME), ctypes.c_int()
    raw.FPDFText_GetFontInfo(textpage, letter, name, FONT_NAME, flags)
    return down.value, raw.FPDFText_GetFontSize(textpage, letter), BOLD.search(name.value) is not None
