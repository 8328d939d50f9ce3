"""Reads PDFs: text in reading order, without running heads, feet and page numbers; ruled tables as tables.

Read with pypdfium2 (Apache-2.0 or BSD-3-Clause; PDFium itself is BSD-3-Clause), which gives the place, size and font of
each line and the rules drawn. benchmarks/parts/document_readers.py: pypdfium2, pypdf (BSD) and pdfplumber (MIT) miss no text
of three files and all keep the running head, at 5, 13 and 280 ms per file; with what the modules beside this one add (order
of columns, tables, headings, values of forms, exponents, no running heads), it is 20 ms. PyMuPDF is AGPL.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Sequence

import pypdfium2 as pdfium
import pypdfium2.raw as raw

from finetune.errors import Unusable
from finetune.prepare.documents.outline import Outline
from finetune.prepare.documents.pdf_layout import columns_of, edge_lines, headings_of, lines_of
from finetune.prepare.documents.pdf_page import SCANNED, PageContent, Piece, read_page
from finetune.prepare.documents.reflow import Line, Page, outline_from
from finetune.prepare.documents.running import running_lines
from finetune.records import Document

MAX_PAGES = 5000  # the longest handbooks have about 3,000
MAX_SECONDS = 120.0  # for one file: 5,000 pages of text take about 20 s
MAX_TEXT = 50 * 2**20  # characters of one file
MIN_LETTERS = 0.5  # of what is neither blank nor digit: fonts without a code table give signs instead

# Names that programs write: of the file, or of nothing.
NO_TITLE = re.compile(
    r"\s*|\W*(?:untitled|anonymous|unspecified|no title)\W*\d*|(?:document|dokument|presentation|slide)\s?\d*"
    r"|powerpoint[ -]presentation|microsoft \w+ - .*"
    r"|.*\.(?:pdf|docx?|dotx?|odt|rtf|txt|tex|dvi|pptx?|odp|xlsx?|ods|indd|pages|pmd|qxd|html?)",
    re.I,
)


def read(data: bytes, shown: str) -> Document:
    """The text of a PDF; its title is the largest heading on the first page, else the title in its properties.

    Raises:
        Unusable: `damaged_pdf`, `encrypted_pdf`, `scanned_pdf` (only pictures), `unreadable_pdf` (fonts without a character
            map), `xfa_pdf` (a form whose text is not on its pages), `slow_pdf`, `too_large`, `no_text`.
    """
    try:
        file = pdfium.PdfDocument(data)
    except pdfium.PdfiumError as error:
        if "assword" in str(error) or "ecurity" in str(error):
            raise Unusable(
                "encrypted_pdf", "it needs a password. Save it without one, or skip it with --on-error skip"
            ) from None
        raise Unusable("damaged_pdf", "it is not a PDF file, or is damaged. Save or copy it again") from None
    try:
        title = file.get_metadata_value("Title")
        attached = raw.FPDFDoc_GetAttachmentCount(file)
        pages = _pages(file)
        if not any(page.pieces for page in pages):
            raise _without_text(pages)
    except pdfium.PdfiumError:
        raise Unusable("damaged_pdf", "one of its pages is damaged. Save or copy it again") from None
    finally:
        file.close()
    _check_letters(pages)
    outline = _outline(pages)
    outline.unused["attachment"] += attached
    if NO_TITLE.fullmatch(title):
        outline.unused["title"] += bool(title.strip())
        title = ""
    return outline.document(title)


def _pages(file: pdfium.PdfDocument) -> list[PageContent]:
    if len(file) > MAX_PAGES:
        raise Unusable("too_large", f"it has more than {MAX_PAGES:,} pages. Split it")
    if file.get_formtype() == raw.FORMTYPE_XFA_FULL:
        raise Unusable("xfa_pdf", "it is an XFA form, whose text is not on its pages. Print it to a new PDF")
    file.init_forms()
    end = time.monotonic() + MAX_SECONDS
    pages: list[PageContent] = []
    size = 0
    for number in range(len(file)):
        page = file[number]
        pages.append(read_page(page, file.formenv))
        page.close()
        size += sum(len(piece.text) for piece in pages[-1].pieces)
        if size > MAX_TEXT:
            raise Unusable("too_large", f"it has more than {MAX_TEXT // 2**20} MiB of text. Split it")
        if time.monotonic() > end:
            raise Unusable(
                "slow_pdf", f"reading it takes more than {MAX_SECONDS:.0f} s. Split it, or print it to a new PDF"
            )
    return pages


def _without_text(pages: Sequence[PageContent]) -> Unusable:
    if any(SCANNED in page.unused for page in pages):
        return Unusable("scanned_pdf", "its pages are pictures without text. Run text recognition (OCR) on it first")
    return Unusable("no_text", "the document has no text. Skip it with --on-error skip")


def _check_letters(pages: Sequence[PageContent]) -> None:
    letters = odd = 0
    for page in pages:
        for piece in page.pieces:
            letters += sum(map(str.isalpha, piece.text))
            odd += sum(
                1 for sign in piece.text if sign == "\ufffd" or not sign.isprintable() or "\ue000" <= sign <= "\uf8ff"
            )
    if odd > letters:
        raise Unusable(
            "unreadable_pdf", "its fonts do not say which letters they show. Run text recognition (OCR) on it"
        )


def _outline(pages: Sequence[PageContent]) -> Outline:
    """Remove running heads by their place on the pages, then put each page in reading order."""
    unused = sum((page.unused for page in pages), Counter[str]())
    edges = [edge_lines(page) for page in pages]
    running = running_lines([[line for lines in page.values() for line in lines] for page in edges])
    kept: list[list[Piece]] = []
    for page, edge, names in zip(pages, edges, running, strict=True):
        gone = {piece: names[line] for piece, lines in edge.items() for line in lines if line in names}
        unused.update(gone.values())
        kept.append([piece for piece in page.pieces if piece not in gone])
    headings = headings_of([piece for page in kept for piece in page])
    ordered: list[Page] = [lines_of(run, headings) for page in kept for run in columns_of(page)]
    outline = outline_from(_with_whole_tables(ordered), wrapped=True)
    outline.unused.update(unused)
    return outline


def _with_whole_tables(pages: Sequence[Page]) -> list[Page]:
    """Join tables that continue on the next page, and remove their repeated header."""
    whole: list[list[Line]] = []
    table: tuple[int, int] | None = None  # position of the table at the end of the last page
    for page in pages:
        lines = list(page)
        first = next((position for position, line in enumerate(lines) if line.text), None)
        if table is not None and first is not None and lines[first].fixed:
            before, rows = whole[table[0]][table[1]], lines[first].text.split("\n")
            if before.text.split("\n")[:2] == rows[:2]:
                whole[table[0]][table[1]] = Line("\n".join([before.text, *rows[2:]]), fixed=True)
                del lines[first]
        whole.append(lines)
        last = next((position for position in reversed(range(len(lines))) if lines[position].text), None)
        if last is not None:
            table = (len(whole) - 1, last) if lines[last].fixed else None
    return list(whole)
