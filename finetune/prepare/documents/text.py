"""Reads plain text: as typed, as wrapped by a mail program, or as copied from printed pages."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

from finetune.prepare.documents.reflow import Line, Page, mark_underlined, outline_from
from finetune.prepare.documents.running import is_page_number, without_running
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

LINE_END = re.compile(r"\r\n?|\u2028|\x85")
PARAGRAPH_LINE = 200  # characters: where lines are as long as that, each is a paragraph
FEED = "\f"
PAGE_OF = re.compile(r"(\d+)\s*(?:of|/|von|de|sur)\s*(\d+)", re.I)


def read(data: bytes, shown: str) -> Document:
    """The paragraphs of a text; underlined lines, lines in capitals and short separate questions become headings.

    Raises:
        Unusable: it has no text.
        InputError: it is binary.
    """
    text = LINE_END.sub("\n", decode(data, shown)).replace("\u2029", "\n\n")
    pages: list[Page] = [[Line(line) for line in _space_lines(page)] for page in text.split(FEED)]
    if len(pages) > 1:
        pages, unused = without_running(pages)
    else:
        numbers = _page_numbers(pages[0])
        pages = [[line for position, line in enumerate(pages[0]) if position not in numbers]]
        unused = Counter({"page number": len(numbers)})
    marked = [mark_underlined(page) for page in pages]
    outline = outline_from([lines for lines, _ in marked], wrapped=False)
    outline.unused.update(unused)
    outline.unused["rule"] += sum(rules for _, rules in marked)
    return outline.document()


def _page_numbers(page: Page) -> set[int]:
    """The positions of lines such as "Page 3 of 12", if they count the pages; a number alone may be text, and so may 2/3."""
    numbers = {
        position: (int(match[1]), int(match[2]))
        for position, line in enumerate(page)
        if is_page_number(line.text) and (match := PAGE_OF.search(line.text))
    }
    counts = list(numbers.values())
    counted = all(after == (number + 1, total) for (number, total), after in pairwise(counts))
    return set(numbers) if len(counts) > 1 and counted else set()


def _space_lines(text: str) -> list[str]:
    """The lines, with blank lines between them if they are long."""
    lines = text.split("\n")
    filled = [line for line in lines if line.strip()]
    if filled and max(map(len, filled)) > PARAGRAPH_LINE:
        return [part for line in lines for part in (line, "")]
    return lines
