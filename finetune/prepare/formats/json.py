"""Reads JSON Lines, lists of objects, objects one after another, and objects that wrap rows (json_objects.py)."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from typing import Any

from finetune.errors import InputError
from finetune.prepare.formats.encoding import SURROGATE
from finetune.prepare.formats.files import (
    MAX_LINE,
    BadRow,
    DataFile,
    Lines,
    Row,
    Rows,
    Text,
    Unread,
    in_blocks,
    not_utf8,
    open_file,
    too_long,
)
from finetune.prepare.formats.json_objects import rows_inside, squad_rows

BLANKS = " \t\r\n\ufeff"


def read_json(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of lines with an object each, or of the rows in one list, in one object, or in several across lines."""
    yield from _read_lines(file) if _is_lined(file) else in_blocks(_read_values(file))


def _is_lined(file: DataFile) -> bool:
    """Whether each line is a value of its own, judging by the beginning of the file, whatever its extension."""
    with open_file(file) as raw:
        text = Text(file, raw)
        head = text.read().decode(errors="replace").lstrip(BLANKS)
        first, _, rest = head.partition("\n")
        second = rest.lstrip(BLANKS).partition("\n")[0]
        is_single = not rest.strip(BLANKS) and not text.read()
    is_list = head.startswith("[")
    try:
        end = DECODER.raw_decode(head)[1]
    except _RepeatedKeyError:
        return not is_list
    except (ValueError, RecursionError):
        broken_off = is_list or (head.startswith("{") and not _is_value(second))
        return not (broken_off and (is_list or file.suffix == ".json"))
    return end <= len(first) and not is_single and (not is_list or _is_value(second))


def _is_value(line: str) -> bool:
    try:
        DECODER.decode(line)
    except (ValueError, RecursionError, _RepeatedKeyError):
        return False
    return True


def _read_lines(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of whole lines."""
    with open_file(file) as raw:
        text, line, rest = Text(file, raw), 1, b""
        while data := text.read():
            data = rest + data
            cut = data.rfind(b"\n") + 1
            if cut:
                yield Lines(line, data[:cut])
                line += data.count(b"\n", 0, cut)
            rest = data[cut:]
            if len(rest) > MAX_LINE:
                yield (too_long(line),)
                rest, line = _skip_line(text), line + 1
        if rest:
            yield Lines(line, rest)


def _skip_line(text: Text) -> bytes:
    """Skip a line that is too long; returns the beginning of the next line."""
    while data := text.read():
        if b"\n" in data:
            return data.split(b"\n", 1)[1]
    return b""


def parse_lines(block: Lines) -> Iterator[Row | BadRow]:
    """The rows of a block, without blank lines."""
    for number, line in enumerate(block.data.split(b"\n"), block.first):
        try:
            text = line.decode().strip(BLANKS)
        except UnicodeDecodeError:
            yield BadRow(number, "not_utf8", not_utf8(line))
            continue
        if text:
            yield _parse_line(number, text)


def _parse_line(number: int, text: str) -> Row | BadRow:
    try:
        return _as_row(number, DECODER.decode(text))
    except json.JSONDecodeError as error:
        return BadRow(
            number, "broken_json", f"not valid JSON ({error.msg}, column {error.colno}). Each line must be one object"
        )
    except _RepeatedKeyError:
        return BadRow(number, "repeated_key", "an object has the same key twice. Give each field its own name")
    except (ValueError, RecursionError):
        return BadRow(number, "broken_json", "not valid JSON (a number is too long, or objects are nested too deeply)")


class _RepeatedKeyError(Exception):
    pass


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise _RepeatedKeyError
    return fields


# NaN and Infinity, which Python and data frames write and JSON lacks, are null.
DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats, parse_constant=lambda name: None)


def _as_row(number: int, value: object) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(number, value)
    kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
    return BadRow(number, "no_object", f"the row is {kind}, not an object with named fields. Write one object per row")


def _read_values(file: DataFile) -> Iterator[Row | BadRow | Unread]:
    """The rows of one list or object, or of several on end, each with its line; a malformed one ends the file."""
    with open_file(file) as raw:
        buffer = _Buffer(file, Text(file, raw))
        try:
            is_first = True
            while opening := buffer.peek():
                if opening == "[":
                    yield from _read_list(buffer)
                    is_first = False
                    continue
                buffer.read_all()
                line = buffer.at()
                value, is_damaged = buffer.take()
                if is_damaged:
                    yield BadRow(line, "not_utf8", not_utf8())
                elif is_first and not buffer.peek() and isinstance(value, dict):
                    yield from rows_inside(value, line)
                else:
                    yield _as_row(line, value)
                is_first = False
        except _BrokenJSONError as error:
            yield BadRow(error.line, "broken_json", error.problem)
            if lost := buffer.skip_rest():
                yield Unread("line", "after broken JSON", lost)


class _BrokenJSONError(Exception):
    def __init__(self, line: int, problem: str) -> None:
        self.line, self.problem = line, problem


class _Buffer:
    """The part of a JSON text that is in memory."""

    def __init__(self, file: DataFile, source: Text) -> None:
        self.file, self.text, self.position, self.ended = file, "", 0, False
        self._source, self._decoder = source, codecs.getincrementaldecoder("utf-8")("surrogateescape")
        self._line, self._counted = 1, 0  # the line of a position in the text

    def more(self) -> bool:
        """Read more; False at the end of the file."""
        data = self._source.read()
        new = self._decoder.decode(data, final=not data)
        if not new:
            self.ended = True
            return False
        self.at()
        self.text, self.position, self._counted = self.text[self.position :] + new, 0, 0
        return True

    def read_all(self) -> None:
        """Read the whole file, which is one object.

        Raises:
            InputError: it is too large.
        """
        while self.more():
            if len(self.text) > 8 * MAX_LINE:
                raise InputError(
                    f"{self.file.shown} is one JSON object of more than {8 * MAX_LINE // 2**20} MiB. Write it as JSON "
                    "Lines, one row per line"
                )

    def peek(self) -> str:
        """The next character that is not white space; "" at the end."""
        while True:
            while self.position < len(self.text) and self.text[self.position] in BLANKS:
                self.position += 1
            if self.position < len(self.text):
                return self.text[self.position]
            if not self.more():
                return ""

    def take(self) -> tuple[Any, bool]:
        """The next value, however many reads it spans, and whether it has bytes that are not UTF-8.

        Raises:
            _BrokenJSONError: it is malformed, or longer than a row may be.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.position > MAX_LINE and not self.ended:
                    raise _BrokenJSONError(self.at(), too_long(1).problem) from None
                if isinstance(error, RecursionError) or not self.more():
                    raise self.broken(getattr(error, "msg", "nested too deeply"), getattr(error, "pos", 0)) from None
                continue
            except _RepeatedKeyError:
                raise self.broken("an object has the same key twice") from None
            if end == len(self.text) and self.more():
                continue  # a number may continue
            is_damaged = SURROGATE.search(self.text, self.position, end) is not None
            self.position = end
            return value, is_damaged

    def at(self) -> int:
        """The line of the current position."""
        self._line += self.text.count("\n", self._counted, self.position)
        self._counted = self.position
        return self._line

    def broken(self, why: str, position: int | None = None) -> _BrokenJSONError:
        """An error at a position in the text (None: the current one)."""
        self.position = self.position if position is None else max(position, self.position)
        return _BrokenJSONError(self.at(), f"not valid JSON ({why}). Correct the file there")

    def skip_rest(self) -> int:
        """The number of lines between the current one and the end of the file."""
        lines = self.text.count("\n", self.position)
        is_complete = self.text.endswith("\n")
        while data := self._source.read():
            lines, is_complete = lines + data.count(b"\n"), data.endswith(b"\n")
        return lines - is_complete


def _read_list(buffer: _Buffer) -> Iterator[Row | BadRow]:
    """Decode one element after the other, so that each has its line; a malformed element ends the file."""
    buffer.position += 1
    while buffer.peek() != "]":
        line = buffer.at()
        value, is_damaged = buffer.take()
        if is_damaged:
            yield BadRow(line, "not_utf8", not_utf8())
        elif isinstance(value, dict) and isinstance(value.get("paragraphs"), list):
            yield from (Row(line, row) for row in squad_rows(value))
        else:
            yield _as_row(line, value)
        following = buffer.peek()
        if following == ",":
            buffer.position += 1
        elif following != "]":
            raise buffer.broken("a comma or the end of the list is missing")
    buffer.position += 1
