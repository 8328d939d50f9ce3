"""Reads rows of separated columns: CSV (comma, semicolon, tab or bar) and TSV.

A quote that does not open or close a cell costs its own row, not the rows after it. Tables separated by tabs are often
written without quoting, so there such a row is read as it is written.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from typing import Literal

from finetune.errors import InputError
from finetune.prepare.formats.encoding import SURROGATE
from finetune.prepare.formats.files import (
    MAX_LINE,
    BadRow,
    DataFile,
    Row,
    Rows,
    Text,
    Unread,
    in_blocks,
    not_utf8,
    open_file,
    too_long,
)

SEPARATORS = ",;\t|"
SEPARATOR_LINE = re.compile(r'"?sep=([^\w\s"]|\t)"?\s*', re.I)  # Excel's own first line
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
TOO_MANY = "Put cells that contain separators in double quotes"
TOO_FEW = "Put cells that contain line breaks in double quotes, and write an empty cell for each missing value"
MANY = 50  # lines that look like rows, after which an open quote is not going to close a cell
csv.field_size_limit(MAX_LINE)  # a whole article in one cell is fine


def read_csv(file: DataFile) -> Iterator[Rows]:
    """Blocks of rows, with the names in the header."""
    with open_file(file) as raw:
        yield from in_blocks(_rows(file, _Records(file, Text(file, raw))))


def _rows(file: DataFile, records: _Records) -> Iterator[Row | BadRow | Unread]:
    if records.comments:
        yield Unread("line", "comment", records.comments)
    names: list[str] = []
    for line, cells in records:
        if isinstance(cells, BadRow):
            yield cells
        elif not any(map(str.strip, cells)):
            continue
        elif not names:
            names = header_names(file.shown, line, cells)
            nameless = {name for name, cell in zip(names, cells, strict=True) if not cell.strip()}
            records.width = width = len(names)
        elif records.damaged and SURROGATE.search("".join(cells)):
            yield BadRow(line, "not_utf8", not_utf8())
        elif len(cells) != width and (len(cells) < width or any(map(str.strip, cells[width:]))):
            hint = TOO_MANY if len(cells) > width else TOO_FEW
            yield BadRow(line, "broken_csv", f"the row has {len(cells)} cells, the header {width}. {hint}")
        else:
            row = dict(zip(names, cells, strict=False))
            for name in nameless:
                if not row[name].strip():
                    del row[name]
            yield Row(line, row)


def header_names(shown: str, line: int, cells: Sequence[str]) -> list[str]:
    """The names of the columns; one without a name has its number.

    Raises:
        InputError: two columns have the same name.
    """
    names = [cell.strip() or f"unnamed {number}" for number, cell in enumerate(cells, 1)]
    folded = [name.casefold() for name in names]
    twice = sorted({name for name in names if folded.count(name.casefold()) > 1})
    if twice:
        raise InputError(f"{shown}:{line}: the column {', '.join(twice)} occurs twice. Give each column its own name")
    if SURROGATE.search("".join(names)):
        raise InputError(f"{shown}:{line}: {not_utf8()}")
    return names


class _Records:
    """The records of a text with separated columns, each with its first line.

    `width` is the number of cells of the header, 0 until it is set; `comments` counts the lines that were left out above
    the header; `damaged` says whether bytes that are not UTF-8 were met.
    """

    def __init__(self, file: DataFile, text: Text) -> None:
        self.width, self.comments, self.damaged = 0, 0, False
        self._file, self._text, self._rest = file, text, b""
        self._lines, self._first = self._read(), 1
        self._separator = "\t" if file.suffix == ".tsv" else ","
        self._skip_preamble()
        self._literal = self._separator == "\t" and _has_stray_quote(self._lines, ended=self._rest == b"")

    def __iter__(self) -> Iterator[tuple[int, list[str] | BadRow]]:
        quoting: Literal[0, 3] = csv.QUOTE_NONE if self._literal else csv.QUOTE_MINIMAL
        more = True
        while self._lines:
            lines, at = self._lines, 0
            stack: list[str | None] = [None, *reversed(lines)]
            while at < len(lines):
                reader = csv.reader(iter(stack.pop, None), delimiter=self._separator, strict=True, quoting=quoting)
                base = at
                try:
                    for cells in reader:
                        end = base + reader.line_num
                        if end - at > 1 and _is_merged(lines[at:end], self._separator, self.width):
                            raise csv.Error(
                                f"a quote opens a cell that closes {end - at - 1} lines later, after other rows"
                            )
                        yield self._first + at, cells
                        at = end
                except csv.Error as error:
                    if not stack:
                        stack.append(None)
                        if more and not _is_merged(lines[at : at + MANY], self._separator, self.width, at_least=MANY):
                            break  # the cell goes on in the next block
                    yield self._first + at, self._broken(self._first + at, lines[at], error)
                    stack.extend(reversed(lines[at + 1 : base + reader.line_num]))
                    at += 1
            self._first += at
            new = self._read(sum(map(len, lines[at:]))) if more else []
            more = bool(new)
            self._lines = lines[at:] + new

    def _broken(self, number: int, line: str, error: csv.Error) -> list[str] | BadRow:
        """A line at which quoting fails, as it is written if tabs separate its cells."""
        if self._separator == "\t":
            return line.rstrip("\r\n").split("\t")
        return BadRow(
            number,
            "broken_csv",
            f"not valid CSV ({error}). Put cells that contain quotes in double quotes, and double the quotes inside",
        )

    def _skip_preamble(self) -> None:
        """Take the separator from the line `sep=;` or from the header, and leave out comments above the header."""
        named = SEPARATOR_LINE.fullmatch(self._lines[0]) if self._lines else None
        if named:
            del self._lines[0]
            self._first += 1
        texts = [line for line in self._lines[:MANY] if line.strip()]
        header = next((line for line in texts if not line.startswith("#")), texts[0] if texts else "")
        if named:
            self._separator = named[1]
        elif self._file.suffix != ".tsv":
            plain = re.sub(r'"[^"]*"', "", header)
            self._separator = max(SEPARATORS, key=plain.count)
        separators = header.count(self._separator)
        while self._lines and (line := self._lines[0]).startswith("#") and line is not header:
            if line.count(self._separator) >= max(separators, 1):
                return
            del self._lines[0]
            self._first += 1
            self.comments += 1

    def _read(self, size: int = 0) -> list[str]:
        """The next lines with their line ends, of more than `size` bytes if there are as many; empty at the end."""
        data = self._rest
        while new := self._text.read():
            data += new
            cut = data.rfind(b"\n") + 1
            if cut > size:
                break
            if len(data) > size + MAX_LINE:
                raise InputError(f"{self._file.shown}: {too_long(1).problem}")
        else:
            cut = len(data)
        self._rest = data[cut:]
        try:
            text = data[:cut].decode()
        except UnicodeDecodeError:
            text, self.damaged = data[:cut].decode(errors="surrogateescape"), True
        return LINE.findall(text)


def _has_stray_quote(lines: Sequence[str], ended: bool) -> bool:
    """Whether some quote in a table separated by tabs opens no cell, so that none does."""
    reader = csv.reader(lines, delimiter="\t", strict=True)
    at = width = 0
    try:
        for cells in reader:
            width = width or len(cells)
            if _is_merged(lines[at : reader.line_num], "\t", width):
                return True
            at = reader.line_num
    except csv.Error:
        return ended or reader.line_num < len(lines)
    return False


def _is_merged(lines: Sequence[str], separator: str, width: int, at_least: int = 2) -> bool:
    """Whether a quoted cell has swallowed rows: read without quotes, each of the lines is one, and none looks like prose."""
    if width < 2 or len(lines) < at_least or "".join(lines).count('"') > 2:
        return False
    for line in lines:
        cells = line.rstrip("\r\n").replace('"', "").split(separator)
        empty = not all(cells) if width == 2 else not cells[0]
        if len(cells) != width or empty or any(cell.startswith(" ") for cell in cells):
            return False
    return True
