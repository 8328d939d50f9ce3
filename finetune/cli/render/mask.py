"""Renders rows as a base model sees them, with the tokens that carry loss in colour or, without colours, in brackets."""

from __future__ import annotations

import os
import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from finetune.cli.console import console, facts
from finetune.cli.render.corpus import CONTROL, escape
from finetune.records import count_alike

if TYPE_CHECKING:
    from finetune.corpus.mask import MaskedRow, MaskedText, MaskView

OPEN, CLOSE = "⟦", "⟧"
PLAIN = str.maketrans({OPEN: "[[", CLOSE: "]]"})  # where the terminal has no such brackets
COLOUR, RESET = "\x1b[32m", "\x1b[0m"
HEAD, TAIL = 800, 200  # characters shown of a piece that is longer than both
ESCAPED = re.compile(f"{CONTROL.pattern}|[{OPEN}{CLOSE}]")


def render_mask(view: MaskView) -> str:
    """The model and the rows."""
    cut = sum(sample.row.cut > 0 for sample in view.samples)
    summary = {
        "corpus": view.corpus,
        "model": view.model,
        "max length": f"{view.max_length:,} tokens" + (f": {cut} of these rows are cut off" if cut else ""),
        "carries loss": describe_mark(),
    }
    lines = [facts(summary)]
    for sample in view.samples:
        lines += [
            "",
            f"  {ESCAPED.sub(escape, sample.id)}  ({sample.split}, {sample.task}, {describe_row(sample.row)})",
        ]
        lines += mark_row(sample.row)
    return paint("\n".join(lines))


def describe_mark() -> str:
    """How the tokens that carry loss are marked."""
    return f"{OPEN}{'green text' if has_colours() else 'text in brackets'}{CLOSE}"


def describe_row(row: MaskedRow) -> str:
    """The size of a row: "52 tokens, 3 carry loss"."""
    carrying = f"{len(row.ids):,} tokens, {row.supervised:,} carry loss" if row.supervised else "no token carries loss"
    return carrying + (f", {row.cut:,} more are cut off" if row.cut else "")


def mark_row(row: MaskedRow) -> Iterator[str]:
    """The lines of a row and, of a pair, those in which the conversation with the rejected answer differs."""
    yield from mark(row.pieces)
    if row.rejected is not None:
        yield f"    rejected ({describe_row(row.rejected)}):"
        yield from mark(row.rejected.pieces[count_alike(row.pieces, row.rejected.pieces) :])


def mark(pieces: Iterable[MaskedText], indent: str = " " * 4) -> Iterator[str]:
    """The lines of a row, with its supervised pieces in brackets."""
    text = "".join(_bracketed(piece) for piece in pieces)
    width = max(shutil.get_terminal_size((110, 24)).columns, 60)
    for line in text.split("\n"):
        yield from textwrap.wrap(
            line, width, initial_indent=indent, subsequent_indent=indent, replace_whitespace=False
        ) or [""]


def paint(text: str) -> str:
    """The text as the terminal can show it: colours in the place of brackets, or brackets that it has."""
    encoding = getattr(console.out, "encoding", None) or "utf-8"
    if has_colours():
        text = "\n".join(_coloured(text.split("\n")))
    elif OPEN.encode(encoding, "replace").decode(encoding) != OPEN:
        text = text.translate(PLAIN)
    return text.encode(encoding, "backslashreplace").decode(encoding)


def has_colours() -> bool:
    """Whether the result goes to a terminal that shows colours (see no-color.org)."""
    return console.out.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def _bracketed(piece: MaskedText) -> str:
    more = len(piece.text) - HEAD - TAIL
    text = piece.text
    if more > 0:
        text = f"{text[:HEAD]} … ({more:,} more characters) … {text[-TAIL:]}"
    text = ESCAPED.sub(escape, text)
    return f"{OPEN}{text}{CLOSE}" if piece.supervised else text


def _coloured(lines: Iterable[str]) -> Iterator[str]:
    """Lines in which a colour ends at their end, so that it cannot spread."""
    is_open = False
    for line in lines:
        start, is_open = is_open, line.rfind(OPEN) > line.rfind(CLOSE) or (is_open and CLOSE not in line)
        body = line.replace(OPEN, COLOUR).replace(CLOSE, RESET)
        yield (COLOUR if start else "") + body + (RESET if is_open else "")
