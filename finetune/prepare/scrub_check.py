"""How well does scrubbing do on rows of one's own? Draws rows, takes the corrections of a person, and measures."""

from __future__ import annotations

import os
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from finetune.errors import InputError, RecordError
from finetune.prepare.scrub_files import FoundText, ScrubRequest, find_in_rows, make_scrubber, open_files
from finetune.prepare.scrub_rows import read_file
from finetune.scrub.figures import CheckedRow, Figures, Mark, measure

OPEN, CLOSE = "⟦", "⟧"  # around what is marked; brackets of this kind in a text are shown as [ and ]
MARKED = re.compile(rf"{OPEN}([A-Z][A-Z0-9_]*)\|([^{OPEN}{CLOSE}]*){CLOSE}")
HEAD = "=== "
INSTRUCTIONS = f"""\
# This file holds personal data: delete it when you are done.
# Mark what is personal data as {OPEN}KIND|text{CLOSE}, and remove the marks of what is not. Change nothing else; a row that
# you do not check, delete with its line {HEAD.strip()}. Then run the same command again.
"""


@dataclass(frozen=True, slots=True)
class DrawnRow:
    """A row to check: its place, its text, and what was found in it."""

    where: str
    text: str
    found: tuple[Mark, ...]


@dataclass(frozen=True)
class Draw:
    """Some rows of all: half of them with something found, if there are so many; `sizes` counts all rows of each half."""

    rows: tuple[DrawnRow, ...]
    sizes: Mapping[bool, int]


@dataclass(frozen=True)
class CheckResult:
    """Figures by kind and for `all`; in `clean` checked rows nothing was found, and `missed` of these have something."""

    rows: int
    checked: int
    clean: int
    missed: int
    figures: Mapping[str, Figures]


def draw_rows(request: ScrubRequest, count: int) -> Draw:
    """Draw rows by the seed of the request; the same request draws the same rows.

    Raises:
        SlmtuneError: a flag or a file cannot be used, or the files have no text.
    """
    if count < 1:
        raise InputError("--check needs a number of rows, such as 200")
    scrubber, files, draw = make_scrubber(request), open_files(request), random.Random(request.seed)
    drawn: dict[bool, list[DrawnRow]] = {True: [], False: []}
    sizes = {True: 0, False: 0}
    for file in files:
        for row, texts in find_in_rows(scrubber, read_file(file)):
            shown = _joined(f"{file.shown}:{row.line}", texts)
            if not shown.text.strip():
                continue
            half = bool(shown.found)
            sizes[half] += 1
            if len(drawn[half]) < count:
                drawn[half].append(shown)
            elif (place := draw.randrange(sizes[half])) < count:  # each row is as likely: Vitter 1985, algorithm R
                drawn[half][place] = shown
    if not any(sizes.values()):
        raise InputError("The files have no text. Name files with text")
    few = min((True, False), key=lambda half: len(drawn[half]))
    taken = {few: min(len(drawn[few]), count // 2)}
    taken[not few] = min(len(drawn[not few]), count - taken[few])
    rows = [row for half, number in taken.items() for row in draw.sample(drawn[half], number)]
    return Draw(tuple(sorted(rows, key=lambda row: row.where)), sizes)


def _joined(where: str, texts: Sequence[FoundText]) -> DrawnRow:
    """The texts of a row as one, each behind the name of its column."""
    text, found = "", list[Mark]()
    for each in texts:
        text += ("\n" if text else "") + (f"{each.column}: " if each.column else "")
        found += [(len(text) + span.start, len(text) + span.end, span.entity) for span in each.spans]
        text += each.text.replace(OPEN, "[").replace(CLOSE, "]").replace("\r", " ")
    return DrawnRow(where, text, tuple(found))


def mark_text(text: str, marks: Sequence[Mark]) -> str:
    """The text with marks in it."""
    parts, at = [], 0
    for start, end, kind in sorted(marks):
        parts += [text[at:start], f"{OPEN}{kind}|{text[start:end]}{CLOSE}"]
        at = end
    return "".join([*parts, text[at:]])


def read_marks(marked: str) -> tuple[str, tuple[Mark, ...]]:
    """The text without its marks, and the marks."""
    text, marks, at = "", list[Mark](), 0
    for match in MARKED.finditer(marked):
        text += marked[at : match.start()]
        marks.append((len(text), len(text) + len(match[2]), match[1]))
        text += match[2]
        at = match.end()
    return text + marked[at:], tuple(marks)


def correct(row: DrawnRow, marks: Sequence[Mark], answer: str) -> tuple[Mark, ...]:
    """The marks after one correction: `2` or `-2` removes the second, `+KIND text` marks each place of a text.

    Raises:
        InputError: it is no correction, or the text has no such place.
    """
    if answer.startswith("+"):
        kind, _, text = answer[1:].strip().partition(" ")
        places = [match.span() for match in re.finditer(re.escape(text.strip()), row.text)] if text.strip() else []
        if not places or not MARKED.fullmatch(f"{OPEN}{kind.upper()}|{CLOSE}"):
            raise InputError("Write + and a kind and a part of the text, as it is written there: +NAME Jane Doe")
        added = [(start, end, kind.upper()) for start, end in places]
        kept = [each for each in marks if not any(each[0] < end and start < each[1] for start, end, _ in added)]
        return tuple(sorted([*kept, *added]))
    numbers = {abs(int(part)) for part in re.split(r"[ ,]+", answer) if re.fullmatch(r"-?\d{1,4}", part)}
    if not numbers or not numbers <= set(range(1, len(marks) + 1)):
        raise InputError("Write the numbers of the marks that are wrong, such as 1,3, or + and a kind and a text")
    return tuple(each for number, each in enumerate(marks, 1) if number not in numbers)


def write_check(path: Path, draw: Draw) -> None:
    """Write the rows with their marks into a file that only the user can read.

    Raises:
        InputError: it cannot be written.
    """
    blocks = [INSTRUCTIONS]
    for row in draw.rows:
        lines = mark_text(row.text, row.found).split("\n")
        blocks.append("\n".join([f"{HEAD}{row.where}", *(f"  {line}".rstrip() for line in lines)]) + "\n")
    try:
        with open(path, "x", encoding="utf-8", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write("\n".join(blocks))
    except OSError as error:
        raise InputError(f"{path} cannot be written ({error.strerror}). Name another file with --check-file") from None


def read_check(path: Path, draw: Draw) -> dict[str, tuple[Mark, ...]]:
    """The marks of the rows in a corrected file, by the place of the row.

    Raises:
        InputError: the file cannot be read.
        RecordError: it has a row that was not drawn, or another text; names the line.
    """
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise InputError(f"{path} cannot be read ({reason}). Name the file that --check-file wrote") from None
    rows = {row.where: row for row in draw.rows}
    marks = {}
    for number, where, body in _blocks(lines):
        row = rows.get(where)
        if row is None:
            raise RecordError(
                f"{path}:{number}",
                "this row was not drawn. Use the files, rules and seed that the file was written with, or write it anew",
            )
        text, found = read_marks(body)
        aligned = _align(text, found, row.text)
        if aligned is None:
            raise RecordError(
                f"{path}:{number}", "the text of this row was changed. Change only the marks, or delete the row"
            )
        marks[where] = aligned
    return marks


def _blocks(lines: Sequence[str]) -> Iterator[tuple[int, str, str]]:
    """The line, the place and the body of each row in a corrected file."""
    heads = [number for number, line in enumerate(lines) if line.startswith(HEAD)]
    for head, end in zip(heads, [*heads[1:], len(lines)], strict=True):
        body = "\n".join(line.removeprefix("  ") for line in lines[head + 1 : end])
        yield head + 1, lines[head][len(HEAD) :].strip(), body


def _align(text: str, marks: Sequence[Mark], original: str) -> tuple[Mark, ...] | None:
    """The marks in the original text, of which an editor may have dropped blanks at the ends of lines; None if it differs."""
    places = [place for place, char in enumerate(original) if not char.isspace()]
    kept = [place for place, char in enumerate(text) if not char.isspace()]
    if [original[place] for place in places] != [text[place] for place in kept]:
        return None
    place_of = dict(zip(kept, places, strict=True))
    inside = ([place_of[place] for place in range(start, end) if place in place_of] for start, end, _ in marks)
    return tuple((each[0], each[-1] + 1, kind) for each, (_, _, kind) in zip(inside, marks, strict=True) if each)


def measure_check(draw: Draw, marks: Mapping[str, tuple[Mark, ...]]) -> CheckResult:
    """The figures of the rows that a person has checked.

    Rows in which something was found are drawn more often than others; each counts for as many as it stands for.

    Raises:
        InputError: no row was checked.
    """
    checked = [row for row in draw.rows if row.where in marks]
    if not checked:
        raise InputError("No row was checked. Check at least one")
    halves = {half: sum(bool(row.found) is half for row in checked) for half in (True, False)}
    rows = [
        CheckedRow(row.text, row.found, marks[row.where], draw.sizes[bool(row.found)] / halves[bool(row.found)])
        for row in checked
    ]
    missed = sum(bool(row.right) for row in rows if not row.found)
    return CheckResult(sum(draw.sizes.values()), len(rows), halves[False], missed, measure(rows))
