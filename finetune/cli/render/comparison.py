"""Renders rows before and after cleaning: their changed lines, with characters that no terminal shows written out."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from itertools import zip_longest
from typing import TYPE_CHECKING

from finetune.cli.console import console, facts

if TYPE_CHECKING:
    from finetune.prepare.compare import CleaningComparison, ComparedRow

LINES, WIDTH, BEFORE = 12, 100, 30  # changed lines of a turn, characters of a line, and those before its first change
TRAILING = re.compile(r" +$")


def render_comparison(comparison: CleaningComparison) -> str:
    """The figures and the rows."""
    summary = {
        "corpus": comparison.corpus,
        "clean": comparison.clean,
        "changed": f"{comparison.changed:,} of the first {comparison.read:,} rows",
    }
    text = "\n".join([facts(summary), *(line for row in comparison.rows for line in _row(row))])
    encoding = getattr(console.out, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _row(row: ComparedRow) -> Iterator[str]:
    yield from ("", f"  {_visible(row.id)}")
    if row.before == row.after:
        yield "    unchanged"
    for before, after in zip_longest(row.before, row.after):
        if before != after:
            yield f"    {(after or before).role}:"
            yield from _turn(*((turn.content if turn else "").split("\n") for turn in (before, after)))


def _turn(before: Sequence[str], after: Sequence[str]) -> Iterator[str]:
    lines = []
    for kind, start, end, first, last in SequenceMatcher(None, before, after, autojunk=False).get_opcodes():
        if kind != "equal":
            pairs = list(zip_longest(before[start:end], after[first:last]))
            lines += [f"    - {_cropped(old, new)}" for old, new in pairs if old is not None]
            lines += [f"    + {_cropped(new, old)}" for old, new in pairs if new is not None]
    yield from lines[:LINES]
    if len(lines) > LINES:
        yield f"    … {len(lines) - LINES} more changed lines"


def _cropped(line: str, other: str | None) -> str:
    """The part of a line around its first difference from another."""
    pairs = enumerate(zip(line, other or "", strict=False))
    start = max(0, next((place for place, (one, two) in pairs if one != two), len(other or "")) - BEFORE)
    shown = _visible(TRAILING.sub(lambda match: "·" * len(match[0]), line)[start : start + WIDTH])
    return ("…" if start else "") + shown + ("…" if len(line) > start + WIDTH else "")


def _visible(text: str) -> str:
    return "".join(
        char if char.isprintable() and not unicodedata.combining(char) else char.encode("unicode_escape").decode()
        for char in text
    )
