"""Reads plain text: as typed, as wrapped by a mail program, or as copied from printed pages."""

from __future__ import annotations

import re
from collections import Counter

from finetune.errors import Unusable
from finetune.prepare.documents.reflow import Line, Page, mark_underlined, outline_from
from finetune.prepare.documents.running import LONGEST_NUMBER, is_page_number, without_running
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

LINE_END = re.compile(r"\r\n?|\u2028|\x85")
PARAGRAPH_LINE = 200  # characters: where lines are as long as that, each is a paragraph
FEED = "\f"
PAGE_OF = re.compile(r"\d\s*(?:of|/|von|de|sur)\s*\d", re.I)


def read(data: bytes, shown: str) -> Document:
    """The paragraphs of a text; underlined lines, lines in capitals and short separate questions become headings.

    Raises:
        Unusable: it has no text.
        InputError: it is binary.
    """
    text = LINE_END.sub("\n", decode(data, shown)).replace("\u2029", "\n\n")
    if not text.strip():
        raise Unusable("no_text", "the file is empty or blank. Skip it with --on-error skip")
    pages: list[Page] = [[Line(line) for line in _space_lines(page)] for page in text.split(FEED)]
    running: Counter[str] = Counter()
    if len(pages) > 1:
        pages, running = without_running(pages)
    elif (numbers := sum(1 for line in pages[0] if _is_page_of(line))) > 1:
        pages, running["page number"] = [[line for line in pages[0] if not _is_page_of(line)]], numbers
    outline = outline_from([mark_underlined(page) for page in pages], wrapped=False)
    outline.unused.update(running)
    return outline.document()


def _is_page_of(line: Line) -> bool:
    """Whether a line is "Page 3 of 12"; without form feeds, a number alone may be text."""
    return PAGE_OF.search(line.text[-LONGEST_NUMBER:]) is not None and is_page_number(line.text)


def _space_lines(text: str) -> list[str]:
    """The lines, with blank lines between them if they are long."""
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    if filled and max(map(len, filled)) > PARAGRAPH_LINE:
        return [part for line in lines for part in (line, "")]
    return lines
