"""Builds a Document from headings and blocks of Markdown in reading order."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

from finetune.errors import Unusable
from finetune.records import Document, Section

MAX_LEVEL = 6  # Markdown and HTML have no deeper heading
MAX_HEADING = 300  # characters: what is longer is text that only looks like a heading
# Chinese and Japanese letters, punctuation and full-width forms, between which lines are joined without a blank.
CJK = "\u2e80-\u30ff\u31c0-\u31ff\u3400-\u9fff\uf900-\ufaff\ufe30-\ufe4f\uff01-\uff9f\U00020000-\U0003ffff"
CJK_BREAK = re.compile(rf"(?<=[{CJK}])[ \t]*[\n\r]\s*(?=[{CJK}])")


class Outline:
    """Collects a document in reading order, and counts what is left out of it in `unused`."""

    def __init__(self, unused: Counter[str] | None = None) -> None:
        self._sections: list[tuple[str | None, int, list[str]]] = [(None, 0, [])]
        self.unused: Counter[str] = Counter(unused or ())

    @property
    def level(self) -> int:
        """The level of the current section; 0 before the first heading."""
        return self._sections[-1][1]

    def heading(self, text: str, level: int) -> None:
        """Begin a section; a heading without text is ignored, and one as long as a paragraph becomes a paragraph."""
        text = one_line(text)
        if len(text) > MAX_HEADING:
            self.block(text)
        elif text:
            self._sections.append((text, min(max(level, 1), MAX_LEVEL), []))

    def block(self, text: str) -> None:
        """Add a paragraph, list, table or code block to the current section."""
        text = text.strip("\n")
        if text.strip():
            self._sections[-1][2].append(text)

    def extend(self, other: Outline) -> None:
        """Add the contents of another outline."""
        self.unused.update(other.unused)
        for heading, level, blocks in other._sections:
            if heading is not None:
                self.heading(heading, level)
            for block in blocks:
                self.block(block)

    def only(self, predicate: Callable[[str], bool], rest: str) -> Outline:
        """The outline with only the `predicate` blocks and the headings above them; the others count as `rest`."""
        kept: list[tuple[str | None, int, list[str]]] = []
        above = 0  # headings of a smaller level than this lead to something kept
        for heading, level, blocks in reversed(self._sections):
            good = [block for block in blocks if predicate(block)]
            if good or level < above or level == 0:
                kept.append((heading, level, good))
                above = level
        outline = Outline(self.unused)
        outline._sections = kept[::-1]
        outline.unused[rest] += self._size() - outline._size()
        return outline

    def _size(self) -> int:
        """The number of headings and blocks."""
        return sum(1 + len(blocks) for _, _, blocks in self._sections)

    def text(self) -> str:
        """Everything, with headings as paragraphs."""
        parts = [part for heading, _, blocks in self._sections for part in (heading or "", *blocks)]
        return "\n\n".join(filter(None, parts))

    def document(self, title: str | None = None) -> Document:
        """The document; its title is its only heading of level 1, else `title`.

        Raises:
            Unusable: there is no text.
        """
        sections = [Section(heading, level, "\n\n".join(blocks)) for heading, level, blocks in self._sections]
        if not any(section.text for section in sections):
            raise Unusable("no_text", "the document has no text. Skip it with --on-error skip")
        title = one_line(title or "")[:MAX_HEADING] or None
        tops = [position for position, section in enumerate(sections) if section.level == 1]
        unused = self.unused.copy()
        if tops == [1]:
            unused["title"] += title not in {None, sections[1].heading}
            title = sections[1].heading
            sections[1] = Section(None, 0, sections[1].text)
        unused["heading without text"] += _empty_headings(sections)
        return Document(title, tuple(section for section in sections if section.heading or section.text), +unused)


def _empty_headings(sections: Sequence[Section]) -> int:
    """The number of headings with no text up to the next heading of their level or above: no chunk has them."""
    empty = above = 0  # headings of a smaller level than `above` lead to text
    for section in reversed(sections):
        if section.text or section.level < above:
            above = section.level
        elif section.heading:
            empty += 1
    return empty


def one_line(text: str) -> str:
    """The text with every run of white space replaced with one blank, or with none at a line end between CJK letters."""
    return " ".join((text if text.isascii() else CJK_BREAK.sub("", text)).split())


def in_lines(text: str, end: str = "\v") -> str:
    """The text with each of its lines in one line, and without blank ones."""
    return "\n".join(filter(None, map(one_line, text.split(end))))


def table(rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table; the first row is its header, short rows are padded."""
    width = max(len(row) for row in rows)
    lines = [_table_row([*row, *[""] * (width - len(row))]) for row in rows]
    return "\n".join([lines[0], _table_row(["---"] * width), *lines[1:]])


def _table_row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(one_line(cell).replace("|", "\\|") for cell in cells) + " |"


def code(text: str, language: str = "") -> str:
    """A fenced code block."""
    fence = "```"
    while fence in text:
        fence += "`"
    return f"{fence}{language}\n{text.strip(chr(10))}\n{fence}"
