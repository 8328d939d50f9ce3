"""Splits a document into chunks along its structure, each under the headings above it.

A chunk contains whole sections if they fit, else whole paragraphs, list items and table rows, else sentences, else
words. Every piece of text is in exactly one chunk; only headings are repeated.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from finetune.records import Document, Section

# Characters per token: SmolLM2's tokenizer has 4.8 on average over the first 3,000 answers of MedQuAD, and 4.1 for the
# densest twentieth of them, so counting with 4 hardly ever underestimates.
CHARACTERS_A_TOKEN = 4
# Tokens for each byte of a letter beyond the first: 0.8 to 1.1 for Cyrillic and Arabic, 2 for Chinese letters, which
# take two more bytes (measured on a sentence each).
TOKENS_A_BYTE = 0.8

HEADING_SHARE = 0.5  # of the budget: headings beyond it are left out, the outermost first
MARK = "\n\n"

FENCE = re.compile(r"\s*(```+|~~~+)")
SENTENCE_END = re.compile(r"[.!?।؟][\"'”’)\]]*\s+(?=\S)|[。！？]\s*(?=\S)")
LINE_START = re.compile(r"\s*(?:[-*+]|\(?(?:\d{1,4}|[A-Za-z]|[ivx]{2,6})[.)])\s|\s*\||: ")

Count = Callable[[str], int]
Trail = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unit:
    """A piece of text, its number of tokens, the headings above it, and its separator from the piece before."""

    path: Trail
    text: str
    tokens: int
    before: str = MARK


def approximate_tokens(text: str) -> int:
    """An estimate of the number of tokens for an English model, rather too high than too low."""
    if text.isascii():
        return -(-len(text) // CHARACTERS_A_TOKEN)
    beyond = len(text.encode("utf-8", "surrogatepass")) - len(text)
    return int(len(text) / CHARACTERS_A_TOKEN + beyond * TOKENS_A_BYTE) + 1


def chunk(document: Document, budget: int, count: Count) -> Iterator[str]:
    """Yield the document in chunks of Markdown, in order.

    Args:
        document: its sections without text appear only as headings above others.
        budget: the maximum number of tokens per chunk, at least 1; a single letter with more is a chunk nevertheless.
        count: returns the number of tokens of a text. It is called a few times per paragraph, for all of it or parts.
    """
    held: list[Unit] = []
    size = _Sizes(budget, count)
    for path, section in with_paths(document):
        units = [unit for block in blocks_of(section.text) for unit in _units(path, block, size)]
        whole = sum(unit.tokens + size.mark for unit in units)
        fresh = held and size.of(held) + whole > budget and size.headings(path) + whole <= budget
        if held and (fresh or not _belong(held, path)):
            yield from _settle(held, size)
            held = []
        for unit in units:
            if held and size.of(held) + size.step(held[-1].path, path) + unit.tokens + size.mark > budget:
                carried = held.pop() if len(held) > 1 and _leads(held[-1], unit, size) else None
                yield from _settle(held, size)
                held = [carried] if carried else []
            held.append(unit)
    if held:
        yield from _settle(held, size)


def with_paths(document: Document) -> Iterator[tuple[Trail, Section]]:
    """The sections with text, each with its headings from the title down."""
    root: Trail = (document.title,) if document.title else ()
    stack: list[tuple[int, str]] = []
    for section in document.sections:
        if section.heading is not None:
            stack = [(level, heading) for level, heading in stack if level < section.level]
            if stack or (section.heading,) != root:
                stack.append((section.level, section.heading))
        if section.text.strip():
            yield root + tuple(heading for _, heading in stack), section


def blocks_of(text: str) -> list[str]:
    """The blocks of Markdown between blank lines; a fenced code block is one."""
    blocks: list[list[str]] = [[]]
    fence = ""
    for line in text.split("\n"):
        mark = FENCE.match(line)
        if not line.strip() and not fence:
            blocks.append([])
            continue
        blocks[-1].append(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and line.strip() == mark[1]:
            fence = ""
    return ["\n".join(lines) for lines in blocks if lines]


class _Sizes:
    """Token counts of units and headings; those of headings are cached, because each chunk repeats them."""

    def __init__(self, budget: int, count: Count) -> None:
        self.budget, self.count = budget, count
        self.mark = count(MARK)
        self._headings: dict[Trail, int] = {}
        self._held: tuple[list[Unit], int, int] = ([], 0, 0)  # the last list, its length, its tokens

    def headings(self, path: Trail) -> int:
        """The tokens of the headings above a chunk."""
        if path not in self._headings:
            shown = shown_path(path, self)
            self._headings[path] = self.count(_headings((), shown)) + self.mark if shown else 0
        return self._headings[path]

    def step(self, last: Trail, path: Trail) -> int:
        """The tokens of the headings between two sections of one chunk."""
        return 0 if last == path else self.count(_headings(last, path)) + self.mark

    def of(self, held: list[Unit]) -> int:
        """The tokens of a chunk, summed over its parts."""
        known, length, total = self._held
        if known is not held or length > len(held):
            length, total = 0, self.headings(held[0].path)
        for position in range(length, len(held)):
            before = held[position - 1].path if position else held[position].path
            total += self.step(before, held[position].path) + held[position].tokens + self.mark
        self._held = held, len(held), total
        return total


def shown_path(path: Trail, size: _Sizes) -> Trail:
    """The headings that leave room for text; the innermost ones are the most informative."""
    while path and size.count(_headings((), path)) > HEADING_SHARE * size.budget:
        path = path[1:]
    return path


def _headings(last: Trail, path: Trail) -> str:
    """The headings that change from one section to the next, as Markdown."""
    same = 0
    while same < min(len(last), len(path)) and last[same] == path[same]:
        same += 1
    same = min(same, len(path) - 1)  # a second section of the same name repeats its heading
    return "\n".join(f"{'#' * min(depth + 1, 6)} {path[depth]}" for depth in range(max(same, 0), len(path)))


def _belong(held: Sequence[Unit], path: Trail) -> bool:
    """Whether a section fits the structure of a chunk: it is a sibling of one in it, or below its first section."""
    first, last = held[0].path, held[-1].path
    return path[:-1] in (first[:-1], last[:-1]) or path[: len(first)] == first


def _leads(last: Unit, unit: Unit, size: _Sizes) -> bool:
    """Whether a piece belongs to the next one: "Symptoms are" before a list, the head of a table before its rows."""
    lead = last.text.endswith(("| --- |", ":")) or (last.text[-1].isalpha() and LINE_START.match(unit.text) is not None)
    tokens = size.headings(last.path) + last.tokens + unit.tokens + 2 * size.mark
    return lead and last.path == unit.path and tokens <= size.budget


def _settle(held: list[Unit], size: _Sizes) -> Iterator[str]:
    """The text of a chunk, split in two if it has more tokens than its parts."""
    text = _render(held, size)
    tokens = size.count(text)
    if tokens <= size.budget or (len(held) == 1 and len(held[0].text) == 1):
        yield text
    elif len(held) > 1:
        half = len(held) // 2
        yield from _settle(held[:half], size)
        yield from _settle(held[half:], size)
    else:
        unit = held[0]
        for part in _cut(unit.text, max(size.count(unit.text) * 2 // 3, 1), size.count):
            yield from _settle([replace(unit, text=part)], size)


def _render(held: Sequence[Unit], size: _Sizes) -> str:
    top = shown_path(held[0].path, size)
    text = _headings((), top) + MARK if top else ""
    for before, unit in pairwise([held[0], *held]):
        if unit.path != before.path:
            text += MARK + _headings(before.path, unit.path) + MARK + unit.text
        else:
            text += unit.text if unit is held[0] else unit.before + unit.text
    return text


def _units(path: Trail, block: str, size: _Sizes) -> Iterator[Unit]:
    room = max(size.budget - size.headings(path) - size.mark, 1)
    tokens = size.count(block)
    if tokens <= room:
        yield Unit(path, block, tokens)
        return
    before = "\n" if "\n" in block else " "
    parts = [part for part in _cut(block, room, size.count) if part.strip()]
    for position, part in enumerate(parts):
        yield Unit(path, part, size.count(part), before if position else MARK)


def _cut(text: str, room: int, count: Count) -> list[str]:
    """Split a text into parts of at most `room` tokens: lines of lists and tables, sentences, words, or letters."""
    for pieces, mark in _ways(text):
        if len(pieces) > 1:
            return _pack(pieces, mark, room, count)
    return [text]


def _ways(text: str) -> Iterator[tuple[list[str], str]]:
    lines = text.split("\n")
    if len(lines) > 1:
        yield _items(lines), "\n"
    yield lines, "\n"
    yield _sentences(text), ""
    yield text.split(), " "
    if len(text) > 1:
        half = len(text) // 2
        yield [text[:half], text[half:]], ""


def _sentences(text: str) -> list[str]:
    """Sentences with their trailing white space, which some scripts do not use."""
    ends = [0, *(match.end() for match in SENTENCE_END.finditer(text)), len(text)]
    return [text[start:end] for start, end in pairwise(ends)]


def _items(lines: Sequence[str]) -> list[str]:
    """Lines that belong together: an item of a list with its continuation lines."""
    items: list[str] = []
    for line in lines:
        if items and not LINE_START.match(line) and LINE_START.match(items[-1]):
            items[-1] += "\n" + line
        else:
            items.append(line)
    return items


def _pack(pieces: Sequence[str], mark: str, room: int, count: Count) -> list[str]:
    """Join pieces up to `room` tokens; pieces that are too large are split further."""
    between = count(mark) if mark else 0
    groups: list[list[str]] = []
    used = 0
    for piece in pieces:
        tokens = count(piece)
        if tokens > room:
            groups += [[part] for part in _cut(piece, room, count)]
            used = room
        elif groups and used + between + tokens <= room:
            groups[-1].append(piece)
            used += between + tokens
        else:
            groups.append([piece])
            used = tokens
    return [text for group in groups for text in _fitting(group, mark, room, count)]


def _fitting(group: Sequence[str], mark: str, room: int, count: Count) -> Iterator[str]:
    text = mark.join(group).rstrip()
    if len(group) == 1 or count(text) <= room:
        yield text
        return
    half = len(group) // 2
    yield from _fitting(group[:half], mark, room, count)
    yield from _fitting(group[half:], mark, room, count)
