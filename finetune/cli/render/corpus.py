"""Renders a corpus as text for a terminal: counts as bars, a histogram of lengths and sample rows."""

from __future__ import annotations

import re
import shutil
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from itertools import groupby
from typing import TYPE_CHECKING

from finetune.cli.console import console, facts
from finetune.records import count_alike, name_tools

if TYPE_CHECKING:
    from finetune.corpus.lengths import Lengths
    from finetune.corpus.view import CorpusView, Sample

BAR = 30  # width of the longest bar, in columns
EIGHTHS = " ▏▎▍▌▋▊▉█"
LABELS = 20  # labels shown per source
NAME, TEXT = 48, 1_000  # characters shown of a name and of a message
# Escape sequences in a row's text could recolour, retitle or reorder the terminal's contents.
CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069]")

Bars = Iterable[tuple[str, int]]


def render_view(view: CorpusView, *, encoding: str | None = None) -> str:
    """The view as text in `encoding` (default: the terminal's), with ASCII bars if it has no block characters."""
    encoding = encoding or getattr(console.out, "encoding", None) or "utf-8"
    cells = EIGHTHS if EIGHTHS.encode(encoding, "replace").decode(encoding) == EIGHTHS else " #"
    text = "\n".join(_lines(view, cells)).rstrip()
    return text.encode(encoding, "backslashreplace").decode(encoding)


def _lines(view: CorpusView, cells: str) -> Iterator[str]:
    yield facts(
        {
            "corpus": view.corpus,
            "domain": name_line(view.domain or "-"),
            "rows": f"{view.rows:,}",
            "fingerprint": view.fingerprint[:16],
        }
    )
    yield from _bars("Splits", view.splits.items(), cells)
    yield from _bars("Tasks", view.tasks.items(), cells)
    yield from _bars("Sources", [(f"{source.id} ({source.license})", source.rows) for source in view.sources], cells)
    for source, labels in view.labels.items():
        yield from _bars(f"Labels of {name_line(source)}", _first(labels, LABELS), cells)
    yield from _bars("Left out", [(f"{drop.step}: {drop.reason}", drop.rows) for drop in view.drops], cells)
    if view.lengths is not None:
        yield from _lengths(view.lengths, cells)
    for note in view.notes:
        yield from ("", name_line(note, len(note)))
    for task, samples in groupby(sorted(view.samples, key=lambda sample: sample.task), key=lambda sample: sample.task):
        yield from ("", f"Rows of task {name_line(task)}")
        for sample in samples:
            yield from _sample(sample)


def _lengths(lengths: Lengths, cells: str) -> Iterator[str]:
    unit = f"tokens of {lengths.tokenizer}" if lengths.unit == "tokens" else lengths.unit
    of = f"{lengths.measured:,} rows" + ("" if lengths.measured == lengths.rows else f" drawn from {lengths.rows:,}")
    bars = [(f"{bin_.low:,} to {bin_.high:,}", bin_.rows) for bin_ in lengths.histogram]
    yield from _bars(f"Length in {name_line(unit)} ({of})", bars, cells, align=">")
    yield ""
    yield facts(
        {
            "shortest": f"{lengths.min:,} {lengths.unit}",
            "median": f"{lengths.median:,}",
            "95th percentile": f"{lengths.p95:,}",
            "longest": f"{lengths.max:,}",
            **{f"above {limit:,}": f"{share:.1%} of rows" for limit, share in lengths.above.items()},
            "supervised": f"{lengths.supervised_share:.1%} of all {lengths.unit}",
        }
    )


def _bars(title: str, rows: Bars, cells: str, *, align: str = "<") -> Iterator[str]:
    """A title and one line per row (name, number, bar); nothing if there are no rows."""
    from rich.cells import cell_len

    named = [(name_line(name), count) for name, count in rows]
    if not named:
        return
    width, most = max(cell_len(name) for name, _ in named), max(count for _, count in named)
    numbers = max(len(f"{count:,}") for _, count in named)
    yield from ("", title)
    for name, count in named:
        space = " " * (width - cell_len(name))
        padded = space + name if align == ">" else name + space
        yield f"  {padded}  {count:>{numbers},}  {_bar(count, most, cells)}".rstrip()


def _bar(count: int, most: int, cells: str) -> str:
    """A bar in fractions of a column; anything but zero is visible."""
    parts = len(cells) - 1
    filled = max(round(BAR * parts * count / most), 1) if count else 0
    whole, rest = divmod(filled, parts)
    return cells[-1] * whole + (cells[rest] if rest else "")


def _first(counts: Mapping[str, int], most: int) -> Bars:
    """The first rows, and the others summed up as one."""
    rows = list(counts.items())
    rest = rows[most:]
    return rows[:most] + ([(f"({len(rest)} other labels)", sum(count for _, count in rest))] if rest else [])


def _sample(sample: Sample) -> Iterator[str]:
    label = "" if sample.label is None else f", label {name_line(sample.label)}"
    if sample.labels is not None:
        label = f", labels {name_line('; '.join(sample.labels) or 'none')}"
    yield from ("", f"  {name_line(sample.id, 200)}  ({sample.split}{label})")
    width = max(shutil.get_terminal_size((110, 24)).columns, 60)
    tools = [("tools", ", ".join(name_tools(sample.tools)))] if sample.tools else []
    turns = [*tools, *((turn.role, turn.text) for turn in sample.messages)]
    rejected = sample.rejected[count_alike(sample.messages, sample.rejected) :]
    for name, whole in [*turns, *(("rejected", turn.text) for turn in rejected)]:
        text = whole[:TEXT]
        more = len(whole) - len(text)
        text += f" … ({more:,} more characters)" if more else ""
        first = f"    {name + ':':<11}"
        for line in CONTROL.sub(escape, text).split("\n"):
            yield textwrap.fill(line, width, initial_indent=first, subsequent_indent=" " * 15) or first.rstrip()
            first = " " * 15


def name_line(text: object, most: int = NAME) -> str:
    """A name on one line, with control characters escaped, shortened if it is long."""
    line = CONTROL.sub(escape, " ".join(str(text).split()))
    return line if len(line) <= most else line[: most - 1] + "…"


def escape(match: re.Match[str]) -> str:
    """A character as an escape sequence of Python."""
    return match[0].encode("unicode_escape").decode()
