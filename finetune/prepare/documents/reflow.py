"""Turns printed lines into running text: with words and lines joined again, and headings and lists recognised."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise

from finetune.prepare.documents.hyphens import count_words, is_broken, is_suspended, without_break
from finetune.prepare.documents.outline import CJK, Outline

WRAP_SLACK = 14  # characters that a wrapped line may fall short of the width before its end is meant
SHORTEST_WRAP, LONGEST_WRAP = 30, 140  # characters: nobody wraps at less or more, unless words are broken, too
FILLED_SHARE = 0.75  # of the line ends of a wrapped paragraph, at which the next word did not fit
SMALL_SHARE = 0.4  # of these lines, which go on with a small letter: in verse, records and logs, hardly any do
SENTENCE_SHARE = 0.9  # of the line ends, which end a sentence, where each line is one
QUESTION_WORDS = frozenset(
    """what who whom whose which when where why how is are was were do does did can could may might will would should
    """.split()
)
HEADING_WORDS = 20

BULLET = re.compile(r"\s*(?:[-*+•‣◦▪●○■□–—·]|\(?\d{1,3}[.)]|\(?[a-z][.)])\s+")
BULLET_SIGN = re.compile(r"^(\s*)[*•‣◦▪●○■□–—·]\s+")
COLUMNS = re.compile(r"\S(?:\t|\s{3,})\S")
NO_HEADING = re.compile(r"[=_{};<>]")  # signs of code
SENTENCE_END = re.compile(r"[.!?…。！？؟।][\"'”’»)\]]*\s*$")
UNSPACED = CJK + "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff"  # and Thai, Lao, Burmese and Khmer
JOINED = re.compile(rf".?[{UNSPACED}] [{UNSPACED}]|\w[-‐] \w")  # the signs around a line end that no blank replaces


@dataclass(frozen=True, slots=True)
class Line:
    """A line of a page. `level` > 0: it looks like a heading; `fixed`: a block of Markdown that must not change."""

    text: str
    level: int = 0
    fixed: bool = False


Page = Sequence[Line]
Words = Callable[[], Counter[str]]  # how often a text has each word


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
        wrapped: whether all line ends come from wrapping; otherwise, the text decides: those before its right margin
            are intended, and all of them if it has none.
    """
    groups = paragraphs(pages)
    # Only texts with words broken over lines need to know which words there are.
    words = cache(lambda: count_words([line.text for line in group] for group in groups))
    margin = 0 if wrapped else _margin(groups)
    outline = Outline()
    bullets: list[str] = []
    for position, group in enumerate(groups):
        items = [] if group[0].fixed or group[0].level else _list_items(group, words, margin)
        if items:
            bullets += items
            continue
        outline.block("\n".join(bullets))
        bullets = []
        _add(group, outline, words, margin, last=position == len(groups) - 1)
    outline.block("\n".join(bullets))
    return outline


def _add(group: list[Line], outline: Outline, words: Words, margin: float, *, last: bool) -> None:
    first = group[0]
    if first.fixed:
        outline.block(first.text)
        return
    level = first.level or (0 if last else heading_level(group))
    lines = [line.text for line in group]
    if level:
        outline.heading(_join(lines, words, 0), level)
    elif margin and (margin == math.inf or _is_laid_out(lines)):
        outline.block("\n".join(line.rstrip() for line in lines))
    else:
        outline.block(_join(lines, words, margin))


def heading_level(group: Sequence[Line]) -> int:
    """The level of a paragraph that can only be a heading, 0 for others: all capitals, or one short question."""
    text = " ".join(line.text.strip() for line in group)
    words = text.split()
    if len(group) > 2 or not 0 < len(words) <= HEADING_WORDS or BULLET.match(text) or NO_HEADING.search(text):
        return 0
    letters = [letter for letter in text if letter.isalpha()]
    if len(letters) >= 4 and all(letter.isupper() for letter in letters) and text[-1] not in ".,;":
        return 2
    # Headings of leaflets are often questions; inside a text, a question is seldom a paragraph of its own.
    return 2 if text.endswith("?") and words[0].casefold().strip("¿") in QUESTION_WORDS else 0


def _list_items(group: Sequence[Line], words: Words, margin: float) -> list[str]:
    """The items of a list, one text each; none if the group is not a list."""
    if not BULLET.match(group[0].text):
        return []
    items: list[list[str]] = []
    for line in group:
        if BULLET.match(line.text) or not items:
            items.append([BULLET_SIGN.sub(r"\1- ", line.text.rstrip())])
        else:
            items[-1].append(line.text)
    return [_join(lines, words, margin, item=True) for lines in items]


def _margin(groups: Iterable[Sequence[Line]]) -> float:
    """The width in characters at which lines were wrapped; infinite if they were not, so that every line end is meant."""
    ends = [list(_line_ends(group)) for group in groups]
    lengths = sorted(len(before) for group in ends for before, _ in group)
    if not lengths:
        return math.inf
    width = lengths[int(len(lengths) * 0.95)]
    broken = any(is_broken(*end) for group in ends for end in group)
    if width > LONGEST_WRAP or (width < SHORTEST_WRAP and not broken):
        return math.inf
    # A paragraph of lines that are all short is none of those that tell whether the text is wrapped.
    full = [end for group in ends if any(len(before) >= width - _slack(width) for before, _ in group) for end in group]
    filled = [end for end in full if is_broken(*end) or _is_filled(*end, width)]
    small = sum(1 for _, after in filled if _goes_on(after))
    sentences = sum(1 for before, _ in full if SENTENCE_END.search(before))
    wrapped = len(filled) >= FILLED_SHARE * len(full) and small >= SMALL_SHARE * len(filled)
    return width if wrapped and sentences < SENTENCE_SHARE * len(full) else math.inf


def _line_ends(group: Sequence[Line]) -> Iterator[tuple[str, str]]:
    """The lines before and after each line end that may come from wrapping."""
    for before, after in pairwise(group):
        if not (before.fixed or BULLET.match(after.text)):
            yield before.text.rstrip(), after.text.strip()


def _slack(width: float) -> float:
    return min(WRAP_SLACK, width / 4)


def _is_filled(before: str, after: str, margin: float) -> bool:
    """Whether the first word of the next line would not have fitted on this line."""
    word = 1 if re.match(f"[{CJK}]", after) else len(after.split(" ", 1)[0])
    return len(before.rstrip()) + word >= margin - _slack(margin)


def _goes_on(after: str) -> bool:
    """Whether a line begins within a sentence: with a small letter, or one of a script without capitals."""
    return after[:1].isalpha() and not after[:1].isupper()


def _is_laid_out(lines: Sequence[str]) -> bool:
    """Whether a paragraph is code or a drawn table: it has columns, or its lines differ in how far they are indented."""
    if sum(1 for line in lines if COLUMNS.search(line.strip())) > len(lines) / 2:
        return True
    return len({len(line) - len(line.lstrip()) for line in lines[1:]}) > 1


def join_lines(lines: Sequence[str]) -> str:
    """The text of lines that were wrapped, without regard to the rest of the document."""
    return _join(lines, Counter, 0) if lines else ""


def _join(lines: Sequence[str], words: Words, margin: float, *, item: bool = False) -> str:
    """Join lines into one text; those that end well before the margin keep their line break.

    The lines of a list's `item` are also joined where an indented one goes on with a small letter.
    """
    parts = [lines[0].rstrip() if item else lines[0].strip()]
    for before, line in pairwise(lines):
        piece = line.strip()
        if margin != math.inf and is_broken(parts[-1], piece):
            parts[-1] = without_break(parts[-1], piece, words())
        elif _is_filled(before, piece, margin) or (item and line[:1].isspace() and _goes_on(piece)):
            joined = JOINED.fullmatch(f"{parts[-1][-2:]} {piece[:1]}") and not is_suspended(piece)
            parts.append("" if joined else " ")
        else:
            parts.append("\n")
            piece = line.rstrip() if item else piece
        parts.append(piece)
    return "".join(parts)


def mark_underlined(page: Page) -> tuple[list[Line], int]:
    """Turn lines underlined with === or --- into headings; returns the lines without rules, and how many others there were."""
    lines: list[Line] = []
    others = 0
    for position, line in enumerate(page):
        ruler = line.text.strip()
        is_ruler = len(ruler) >= 3 and ruler[0] in "=-~*_" and set(ruler) == {ruler[0]}
        if not is_ruler:
            lines.append(line)
        elif lines and lines[-1].text.strip() and ruler[0] in "=-~" and _alone(lines, position, page):
            lines[-1] = replace(lines[-1], text=lines[-1].text.strip(), level=1 if ruler[0] == "=" else 2)
        else:
            lines.append(Line(""))
            others += 1
    return lines, others


def _alone(lines: Sequence[Line], position: int, page: Page) -> bool:
    """Whether the line above an underline is a paragraph of its own, and as short as a heading."""
    above = lines[-2].text.strip() if len(lines) > 1 else ""
    return not above and len(lines[-1].text.split()) <= HEADING_WORDS and not BULLET.match(lines[-1].text)
