"""Reads rows of separated columns: CSV (comma, semicolon, tab or bar) and TSV."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator

from finetune.errors import InputError
from finetune.prepare.formats.files import (
    BLOCK_ROWS,
    MAX_LINE,
    BadRow,
    DataFile,
    Lines,
    Row,
    Rows,
    Text,
    not_utf8,
    open_file,
)
from finetune.prepare.formats.json import too_long

SEPARATORS = ",;\t|"
LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n)|[^\r\n]+")
csv.field_size_limit(MAX_LINE)  # a whole article in one cell is fine


def read_csv(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of rows, with the names in the header."""
    with open_file(file) as raw:
        lines = _Lines(file, Text(file, raw))
        separator = "\t" if file.suffix == ".tsv" else _separator(lines.first())
        reader = csv.reader(lines, delimiter=separator, strict=True)
        names: list[str] | None = None
        block: list[Row | BadRow] = []
        line = 1
        try:
            for cells in reader:
                first, line = line, reader.line_num + 1
                if not any(cell.strip() for cell in cells):
                    continue
                if names is None:
                    names = _header(file, cells)
                    continue
                block.append(_csv_row(first, names, cells))
                if len(block) == BLOCK_ROWS:
                    yield tuple(block)
                    block = []
        except csv.Error as error:
            raise InputError(
                f"{file.shown}:{line}: not valid CSV ({error}). Put cells that contain quotes, separators or line breaks "
                "in double quotes"
            ) from None
        yield tuple(block)


class _Lines:
    """The lines of a text with unchanged line endings, never more than a few blocks in memory."""

    def __init__(self, file: DataFile, text: Text) -> None:
        self._file, self._text, self._rest, self._number = file, text, b"", 0
        self._waiting: list[str] = []

    def first(self) -> str:
        """The first line that is not blank, without consuming it."""
        taken: list[str] = []
        for line in self:
            taken.append(line)
            if line.strip():
                break
        self._waiting += taken[::-1]
        return taken[-1] if taken else ""

    def __iter__(self) -> Iterator[str]:
        return self

    def __next__(self) -> str:
        while not self._waiting:
            data = self._text.read()
            if not data:
                if not self._rest:
                    raise StopIteration
                data, self._rest = self._rest, b""
                self._waiting = self._decode_lines(data)
                break
            data = self._rest + data
            cut = data.rfind(b"\n") + 1
            self._rest = data[cut:]
            if len(self._rest) > MAX_LINE:
                raise InputError(f"{self._file.shown}:{self._number + 1}: {too_long(1).problem}")
            self._waiting = self._decode_lines(data[:cut])
        return self._waiting.pop()

    def _decode_lines(self, data: bytes) -> list[str]:
        """The lines of these bytes, in reverse order."""
        try:
            text = data.decode()
        except UnicodeDecodeError as error:
            line = self._number + 1 + data.count(b"\n", 0, error.start)
            raise InputError(f"{self._file.shown}:{line}: {not_utf8(data)}") from None
        lines = LINE.findall(text)
        self._number += len(lines)
        return lines[::-1]


def _header(file: DataFile, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{file.shown}:1: the column {', '.join(twice)} occurs twice. Give each column its own name")
    return names


def _csv_row(line: int, names: list[str], cells: list[str]) -> Row | BadRow:
    surplus = any(cell.strip() for cell in cells[len(names) :])
    if surplus or len(cells) < len(names):
        problem = f"the row has {len(cells)} cells, the header {len(names)}. Put cells that contain separators in double quotes"
        return BadRow(line, "broken_csv", problem)
    return Row(line, {name: cell for name, cell in zip(names, cells, strict=False) if name})


def _separator(header: str) -> str:
    plain = re.sub(r'"[^"]*"', "", header)
    return max(SEPARATORS, key=plain.count)
