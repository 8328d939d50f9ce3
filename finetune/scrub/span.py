"""A span of personal data in a text, and which spans remain where several overlap."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

# Of these, the rest of a span is still personal data when a number inside it has been taken out.
DIVISIBLE = frozenset(("NAME", "LOCATION", "ORGANISATION", "ADDRESS"))


@dataclass(frozen=True, slots=True)
class Span:
    """Characters `start` to `end` (exclusive) of a text are personal data of the kind `entity`.

    `score` is between 0 and 1: 1 for a checksum that is right, less for a shape alone. `reason` says in a phrase what
    `recogniser` went by, and never repeats the text.
    """

    entity: str
    start: int
    end: int
    score: float
    recogniser: str
    reason: str


def resolve(spans: Iterable[Span], text: str) -> list[Span]:
    """The spans that remain, in the order of the text and without overlaps.

    Names, addresses and the like of one kind that overlap become one, as sure as the least sure one that it takes. A postal
    code in an address is a part of it. Of two
    others that overlap, the one with the higher score remains, then the longer, then the earlier. A name or an address
    keeps what lies outside the winner, if there is a letter or a digit in it.
    """
    kept: list[Span] = []
    for span in sorted(
        _without_codes(list(_united(spans))), key=lambda each: (-each.score, each.start - each.end, each.start)
    ):
        for part in _outside(span, kept):
            if part == span or (span.entity in DIVISIBLE and any(map(str.isalnum, text[part.start : part.end]))):
                kept.insert(bisect_left(kept, part.start, key=_start), trimmed(part, text) if part != span else part)
    return kept


def _united(spans: Iterable[Span]) -> Iterator[Span]:
    """The spans, those that can be divided joined with others of their kind that they overlap; the surer one says why."""
    open_spans: dict[str, Span] = {}
    for span in sorted(spans, key=_start):
        if span.entity not in DIVISIBLE:
            yield span
            continue
        before = open_spans.get(span.entity)
        if before is not None and span.start < before.end:
            best, other = sorted((before, span), key=lambda each: -each.score)
            both = replace(best, start=before.start, end=max(before.end, span.end))
            span = both if both == best else replace(both, score=other.score)
        elif before is not None:
            yield before
        open_spans[span.entity] = span
    yield from open_spans.values()


def _without_codes(spans: Sequence[Span]) -> Iterator[Span]:
    """The spans, except for postal codes that lie in an address; the addresses come in the order of the text."""
    addresses = [span for span in spans if span.entity == "ADDRESS"]
    for span in spans:
        before = bisect_right(addresses, span.start, key=_start)
        if span.entity != "ZIP" or not before or addresses[before - 1].end < span.end:
            yield span


def _start(span: Span) -> int:
    return span.start


def _outside(span: Span, kept: list[Span]) -> Iterator[Span]:
    """The parts of a span that no kept span covers; the span itself if none does."""
    position = bisect_left(kept, span.start, key=_start)
    position -= position > 0 and kept[position - 1].end > span.start
    inside = []
    while position < len(kept) and kept[position].start < span.end:
        inside.append(kept[position])
        position += 1
    at = span.start
    for other in inside:
        if other.start > at:
            yield replace(span, start=at, end=other.start)
        at = max(at, other.end)
    if at < span.end:
        yield replace(span, start=at) if inside else span


def trimmed(span: Span, text: str) -> Span:
    """The span, which has a letter or a digit, without punctuation and blanks at its ends."""
    start, end = span.start, span.end
    while not text[start].isalnum():
        start += 1
    while not text[end - 1].isalnum():
        end -= 1
    return replace(span, start=start, end=end)
