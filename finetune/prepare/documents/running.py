"""Finds running heads, feet and page numbers: what repeats in one place of the pages, and numbers that count them."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from finetune.prepare.documents.reflow import Page

EDGE_LINES = 3  # of a page, at its top and at its foot, that may be running
RUNNING_SHARE = 0.6  # of the pages: a head may be missing on title pages, or differ left and right
NUMBERED_PAGES = 5  # that must carry a number in the same place, in longer documents; each part may count anew
NEAR = 3.0  # points within which two lines are in the same place
LONGEST_NUMBER = 40  # characters of "- Page 1234 of 1234 -" and the like

OF_TOTAL = r"(?:\s*(?:of|/|von|de|sur)\s*\d{1,5})?"
PAGE_WORD = r"(?:page|pg\.?|p\.|seite|pagina|página|sayfa|strana|str\.|стр\.)\s*"
PAGE_NUMBER = re.compile(
    rf"\W*(?:{PAGE_WORD})?(\d{{1,5}}|[ivxlc]{{1,7}}){OF_TOTAL}\W*|第?\s*(\d{{1,5}})\s*[页頁ページ]+", re.I
)
# A number inside a head counts pages only where it is set off from the words: "Report | 7", not "Day 7".
NUMBER_IN_HEAD = re.compile(
    rf"(?:\b{PAGE_WORD}|[|·•–—]\s*|\s-\s+|\s{{3,}})(\d{{1,5}}){OF_TOTAL}\W*$|^\W*(\d{{1,5}})(?=\s*[|·•–—]|\s+-\s|\s{{3,}})",
    re.I,
)
ROMAN = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}


@dataclass(frozen=True, slots=True)
class EdgeLine:
    """A line near the top or the foot of a page."""

    text: str
    at_top: bool
    level: int  # from the edge inwards, 0 is outermost
    place: float  # in points from the edge of the page, 0 in plain text
    apart: bool  # whether there is a gap between it and the next line inwards


def running_lines(pages: Sequence[Sequence[EdgeLine]]) -> list[Mapping[EdgeLine, str]]:
    """The lines of each page that are no text of it, with what they are: "running head or foot" or "page number".

    A line is one if it is the same, in the same place, on most pages, or if its number counts them and it stands apart
    from the text; and if all lines between it and the edge of the page are, too.
    """
    repeated, counting = _repeated(pages)
    return [
        {**_outer(page, *lines, at_top=True), **_outer(page, *lines, at_top=False)}
        for page, *lines in zip(pages, repeated, counting, strict=True)
    ]


def is_page_number(line: str) -> bool:
    """Whether a line reads like a page number, alone or as "Page 3 of 12"."""
    line = line.strip()
    return len(line) <= LONGEST_NUMBER and PAGE_NUMBER.fullmatch(line) is not None


def without_running(pages: Sequence[Page]) -> tuple[list[Page], Counter[str]]:
    """Pages of plain lines without their heads, feet and page numbers, and the number of each kind."""
    edges = [list(_edges(page)) for page in pages]
    running = running_lines([[line for _, line in page] for page in edges])
    kept: list[Page] = []
    counts: Counter[str] = Counter()
    for page, edge, names in zip(pages, edges, running, strict=True):
        gone = {position: names[line] for position, line in edge if line in names}
        counts.update(gone.values())
        kept.append([line for position, line in enumerate(page) if position not in gone])
    return kept, counts


def _edges(page: Page) -> Iterator[tuple[int, EdgeLine]]:
    """The first and last lines of a page with their positions."""
    filled = [position for position, line in enumerate(page) if line.text.strip() and not line.fixed]
    for at_top, inwards in ((True, filled), (False, filled[::-1])):
        for level, position in enumerate(inwards[:EDGE_LINES]):
            apart = level + 1 == len(inwards) or abs(inwards[level + 1] - position) > 1
            yield position, EdgeLine(page[position].text, at_top, level, 0.0, apart)


def _repeated(pages: Sequence[Sequence[EdgeLine]]) -> tuple[list[set[EdgeLine]], list[set[EdgeLine]]]:
    """The lines of each page that repeat, and those with a number that counts the pages."""
    groups: dict[tuple[bool, str, int | None], list[tuple[float, int, EdgeLine]]] = defaultdict(list)
    for number, page in enumerate(pages):
        for line in page:
            for text, offset in _readings(line.text, number):
                groups[line.at_top, text, offset].append((line.place, number, line))
    repeated: list[set[EdgeLine]] = [set() for _ in pages]
    counting: list[set[EdgeLine]] = [set() for _ in pages]
    for (_, _, offset), lines in groups.items():
        for cluster in _clusters(sorted(lines, key=lambda line: line[:2])):
            numbers = sorted({number for _, number, _ in cluster})
            if _is_frequent(numbers, len(pages)) if offset is None else _is_counted(numbers, len(pages)):
                for _, number, line in cluster:
                    (repeated if offset is None else counting)[number].add(line)
    return repeated, counting


def _readings(text: str, page: int) -> Iterator[tuple[str, int | None]]:
    """The line as it is, and with "#" for the number of its page and how far that is from `page`."""
    text = text.strip()
    yield " ".join(text.split()).casefold(), None
    match = (PAGE_NUMBER.fullmatch(text) if len(text) <= LONGEST_NUMBER else None) or NUMBER_IN_HEAD.search(text)
    if match:
        place = 1 if match[1] else 2
        template = f"{text[: match.start(place)]}#{text[match.end(place) :]}"
        yield " ".join(template.split()).casefold(), _value(match[place]) - page


def _value(number: str) -> int:
    if number.isdecimal():
        return int(number)
    values = [ROMAN[letter] for letter in number.lower()]
    return sum(-value if value < max(values[place:]) else value for place, value in enumerate(values))


def _clusters(lines: Sequence[tuple[float, int, EdgeLine]]) -> Iterator[list[tuple[float, int, EdgeLine]]]:
    """Lines in the same place."""
    cluster: list[tuple[float, int, EdgeLine]] = []
    for line in lines:
        if cluster and line[0] - cluster[-1][0] > NEAR:
            yield cluster
            cluster = []
        cluster.append(line)
    if cluster:
        yield cluster


def _is_frequent(numbers: Sequence[int], pages: int) -> bool:
    return len(numbers) >= max(2, RUNNING_SHARE * pages)


def _is_counted(numbers: Sequence[int], pages: int) -> bool:
    """Whether enough pages carry a number that counts them; readings and sums do so for a page or two by chance."""
    span = numbers[-1] - numbers[0] + 1
    return len(numbers) >= max(2, RUNNING_SHARE * min(pages, NUMBERED_PAGES), RUNNING_SHARE * span)


def _outer(
    page: Sequence[EdgeLine], repeated: set[EdgeLine], counting: set[EdgeLine], *, at_top: bool
) -> Mapping[EdgeLine, str]:
    """The running lines at one edge, from the edge inwards to the first level without one."""
    levels: dict[int, list[EdgeLine]] = defaultdict(list)
    for line in page:
        if line.at_top == at_top:
            levels[line.level].append(line)
    running: list[list[EdgeLine]] = []
    for level in sorted(levels):
        running.append([line for line in levels[level] if line in repeated or line in counting])
        if not running[-1]:
            break
    running = [lines for lines in running if lines]
    while not repeated.issuperset(chain(*running)) and not any(line.apart for line in running[-1]):
        running.pop()
    names = {True: "page number", False: "running head or foot"}
    return {line: names[is_page_number(line.text)] for lines in running for line in lines}
