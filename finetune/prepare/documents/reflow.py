"""Turns printed lines into running text: without running heads and page numbers, with words and lines joined again."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from finetune.prepare.documents.outline import Outline

EDGE_LINES = 3  # of a page, at its top and at its foot, where a running head or a page number may stand
RUNNING_SHARE = 0.6  # of the pages: a head may be missing on title pages, or differ left and right
WRAP_SLACK = 14  # characters that a wrapped line may fall short of the width before its end is meant
LONGEST_WRAP = 140  # characters: nobody wraps wider than that, so longer lines are whole paragraphs
QUESTION_WORDS = frozenset(
    """what who whom whose which when where why how is are was were do does did can could may might will would should
    """.split()  # noqa: SIM905
)
HEADING_WORDS = 20

NUMBERS = re.compile(r"\d+")
PAGE_NUMBER = re.compile(
    r"\W*(?:(?:page|p\.|seite|pagina|página)\s*)?(?:\d{1,5}|[ivxlc]{1,7})(?:\s*(?:of|/|von|de|sur)\s*\d{1,5})?\W*", re.I
)
BULLET = re.compile(r"\s*(?:[-*+•‣◦▪●○■□–—·]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
BULLET_SIGN = re.compile(r"^(\s*)[*+•‣◦▪●○■□–—·]\s+")
COLUMNS = re.compile(r"\S(?:\t|\s{3,})\S")
LONGEST_NUMBER = 40  # characters of "- Page 1234 of 1234 -" and the like
LONGEST_WORD = 60  # letters before a hyphen that are looked at
WORD_START = re.compile(r"[^\W\d_]+")
BROKEN_WORD = re.compile(r"([^\W\d_]+)-$")
WORD = re.compile(r"[^\W\d_]+(?:-[^\W\d_]+)*")


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page. `level` > 0: it looks like a heading; `fixed`: a block of Markdown that must not change."""

    text: str
    level: int = 0
    fixed: bool = False


Page = Sequence[Line]


def running_keys(edges: Sequence[Iterable[str]]) -> frozenset[str]:
    """The text at the edges of most pages, ignoring numbers; `edges` are the lines there, page by page."""
    if len(edges) < 2:
        return frozenset()
    found = Counter(key for lines in edges for key in {running_key(line) for line in lines} if key)
    return frozenset(key for key, pages in found.items() if pages >= max(2, RUNNING_SHARE * len(edges)))


def running_key(line: str) -> str:
    """A line without its numbers, so that it is the same on all pages."""
    return NUMBERS.sub("#", " ".join(line.split())).casefold()


def edge_lines(page: Page) -> set[int]:
    """The positions of the lines that may be a running head or foot."""
    positions = [position for position, line in enumerate(page) if line.text.strip()]
    return {*positions[:EDGE_LINES], *positions[-EDGE_LINES:]}


def without_running(pages: Sequence[Page]) -> list[Page]:
    """The pages without running heads, feet and page numbers."""
    edges = [edge_lines(page) for page in pages]
    keys = running_keys(
        [[page[position].text for position in positions] for page, positions in zip(pages, edges, strict=True)]
    )
    numbered = len(pages) > 1
    return [
        [
            line
            for position, line in enumerate(page)
            if position not in positions or not _is_running(line, keys, numbered)
        ]
        for page, positions in zip(pages, edges, strict=True)
    ]


def _is_running(line: Line, keys: frozenset[str], numbered: bool) -> bool:
    if line.fixed or not line.text.strip():
        return False
    return running_key(line.text) in keys or (numbered and is_page_number(line.text))


def is_page_number(line: str) -> bool:
    """Whether a line is a page number, alone or as "Page 3 of 12"."""
    line = line.strip()
    return len(line) <= LONGEST_NUMBER and PAGE_NUMBER.fullmatch(line) is not None


def paragraphs(pages: Iterable[Page]) -> list[list[Line]]:
    """Groups of lines between blank lines; a group that was split by the end of a page is joined again."""
    groups: list[list[Line]] = []
    for page in pages:
        start = True
        for group in _groups(page):
            if start and groups and _continues(groups[-1][-1], group[0]):
                groups[-1] += group
            else:
                groups.append(group)
            start = False
    return groups


def _groups(page: Page) -> Iterator[list[Line]]:
    group: list[Line] = []
    for line in page:
        if not line.text.strip() or line.fixed or line.level or (group and (group[-1].fixed or group[-1].level)):
            if group:
                yield group
            group = []
        if line.text.strip():
            group.append(line)
    if group:
        yield group


def _continues(last: Line, first: Line) -> bool:
    """Whether a paragraph continues on the next page: no end of a sentence before, no capital after."""
    if last.fixed or first.fixed or last.level or first.level or BULLET.match(first.text):
        return False
    end, begin = last.text.rstrip(), first.text.lstrip()
    return begin[:1].islower() and end[-1:] not in ".!?:;"


def outline_from(pages: Sequence[Page], *, wrapped: bool) -> Outline:
    """Headings and paragraphs of pages without running heads.

    Args:
        pages: lines; empty lines separate paragraphs.
        wrapped: whether all line ends come from wrapping; otherwise, those before the right margin are intended.
    """
    groups = paragraphs(pages)
    words = Counter(word.casefold() for group in groups for line in group for word in WORD.findall(line.text))
    width = _width(groups)
    outline = Outline()
    bullets: list[str] = []
    for position, group in enumerate(groups):
        items = [] if group[0].fixed or group[0].level else _list_items(group, words)
        if items:
            bullets += items
            continue
        outline.block("\n".join(bullets))
        bullets = []
        _add(group, outline, words, None if wrapped else width, last=position == len(groups) - 1)
    outline.block("\n".join(bullets))
    return outline


def _add(group: list[Line], outline: Outline, words: Counter[str], width: int | None, *, last: bool) -> None:
    first = group[0]
    if first.fixed:
        outline.block(first.text)
        return
    level = first.level or (0 if last else heading_level(group))
    text = _join([line.text for line in group], words, None if level else width)
    if level:
        outline.heading(text, level)
    else:
        outline.block(text)


def heading_level(group: Sequence[Line]) -> int:
    """The level of a paragraph that can only be a heading, 0 for others: all capitals, or one short question."""
    text = " ".join(line.text.strip() for line in group)
    words = text.split()
    if len(group) > 2 or not 0 < len(words) <= HEADING_WORDS or BULLET.match(text):
        return 0
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) >= 4 and all(letter.isupper() for letter in letters) and text[-1] not in ".,;":
        return 2
    # Headings of leaflets are often questions; inside a text, a question is seldom a paragraph of its own.
    return 2 if text.endswith("?") and words[0].casefold().strip("¿") in QUESTION_WORDS else 0


def _list_items(group: Sequence[Line], words: Counter[str]) -> list[str]:
    """The items of a list, one text each; none if the group is not a list."""
    if not BULLET.match(group[0].text):
        return []
    items: list[list[str]] = []
    for line in group:
        if BULLET.match(line.text) or not items:
            items.append([BULLET_SIGN.sub(r"\1- ", line.text.rstrip())])
        else:
            items[-1].append(line.text)
    return [_join(lines, words, None, strip=False) for lines in items]


def _width(groups: Iterable[Sequence[Line]]) -> int | None:
    """The width in characters at which lines were wrapped; None if they were not."""
    lengths = sorted(len(line.text.rstrip()) for group in groups for line in group[:-1] if not line.fixed)
    if len(lengths) < 2:
        return None
    width = lengths[int(len(lengths) * 0.95)]
    return width if 30 <= width <= LONGEST_WRAP else None


def _join(lines: Sequence[str], words: Counter[str], width: int | None, *, strip: bool = True) -> str:
    """Join several lines into one text; with a `width`, lines that end well before it keep their line break."""
    drawn = width is not None and sum(1 for line in lines if COLUMNS.search(line.strip())) > len(lines) / 2
    parts = [lines[0].strip() if strip else lines[0].rstrip()]
    for before, line in pairwise(lines):
        piece = line.strip()
        broken = BROKEN_WORD.search(parts[-1][-LONGEST_WORD:]) if parts[-1].endswith("-") else None
        if broken and piece[:1].islower():
            if not _keeps_hyphen(broken[1], piece, words):
                parts[-1] = parts[-1][:-1]
        elif drawn or (width is not None and len(before.rstrip()) + len(piece.split(" ", 1)[0]) < width - WRAP_SLACK):
            parts.append("\n")
        else:
            parts.append(" ")
        parts.append(piece)
    return "".join(parts)


def _keeps_hyphen(head: str, piece: str, words: Counter[str]) -> bool:
    """Whether a word split at a line end keeps its hyphen: because it has one elsewhere, or consists of two words."""
    match = WORD_START.match(piece)
    tail = match[0] if match else ""
    whole, hyphened = words[f"{head}{tail}".casefold()], words[f"{head}-{tail}".casefold()]
    if whole or hyphened:
        return hyphened > whole
    both = words[head.casefold()] > 0 and words[tail.casefold()] > 1
    return both and min(len(head), len(tail)) > 2


def mark_underlined(page: Page) -> list[Line]:
    """Turn lines underlined with === or --- into headings, and remove the underlines."""
    lines: list[Line] = []
    for position, line in enumerate(page):
        ruler = line.text.strip()
        is_ruler = len(ruler) >= 3 and set(ruler) in ({"="}, {"-"}, {"~"}, {"*"}, {"_"})
        if not is_ruler:
            lines.append(line)
        elif lines and lines[-1].text.strip() and ruler[0] in "=-~" and _alone(lines, position, page):
            lines[-1] = replace(lines[-1], text=lines[-1].text.strip(), level=1 if ruler[0] == "=" else 2)
        else:
            lines.append(Line(""))
    return lines


def _alone(lines: Sequence[Line], position: int, page: Page) -> bool:
    """Whether the line above an underline is a paragraph of its own, and as short as a heading."""
    above = lines[-2].text.strip() if len(lines) > 1 else ""
    return not above and len(lines[-1].text.split()) <= HEADING_WORDS and not BULLET.match(lines[-1].text)
