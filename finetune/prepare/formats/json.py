"""Reads JSON Lines, lists of objects, and objects that wrap such a list (such as SQuAD)."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from finetune.errors import InputError
from finetune.prepare.formats.files import (
    MAX_LINE,
    BadRow,
    DataFile,
    Lines,
    Row,
    Rows,
    Text,
    in_blocks,
    not_utf8,
    open_file,
    too_long,
)

WRAPPERS = ("data", "rows", "examples", "records")  # {"data": [row, row]} is a list of rows
BLANKS = " \t\r\n"


def read_jsonl(file: DataFile) -> Iterator[Lines | Rows]:
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
            text = line.decode().strip()
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


DECODER = json.JSONDecoder(object_pairs_hook=_without_repeats)


def _as_row(number: int, value: object) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(number, value)
    kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
    return BadRow(number, "no_object", f"the row is {kind}, not an object with named fields. Write one object per row")


def read_json(file: DataFile) -> Iterator[Lines | Rows]:
    """Read a list element by element, an object that wraps a list, or JSON Lines with another extension."""
    with open_file(file) as raw:
        buffer = _Buffer(file, Text(file, raw))
        first = buffer.peek()
        if first == "[":
            yield from in_blocks(_read_list(buffer))
            return
        buffer.read_all()
    try:
        value, end = DECODER.raw_decode(buffer.text, buffer.position)
    except _RepeatedKeyError:
        raise InputError(f"{file.shown}: an object has the same key twice. Give each field its own name") from None
    except (ValueError, RecursionError):
        yield from read_jsonl(file)  # names the first broken line
        return
    if buffer.text[end:].strip():
        yield from read_jsonl(file)
        return
    rows = _unwrap_rows(value)
    yield from in_blocks(_as_row(number, row) for number, row in enumerate(rows, 1))


def _unwrap_rows(value: Any) -> Iterator[Any]:
    """The rows inside an object: those of a wrapped list, or of SQuAD's articles."""
    wrapped = [value[key] for key in WRAPPERS if isinstance(value, dict) and isinstance(value.get(key), list)]
    plain = isinstance(value, dict) and sum(isinstance(item, list | dict) for item in value.values()) == 1
    for row in wrapped[0] if wrapped and plain else [value]:
        if isinstance(row, dict) and isinstance(row.get("paragraphs"), list):
            yield from _squad_rows(row)
        else:
            yield row


def _squad_rows(article: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """One row per question (Rajpurkar et al., SQuAD, 2016)."""
    for paragraph in article["paragraphs"]:
        if not isinstance(paragraph, dict):
            continue
        for asked in paragraph.get("qas") or ():
            if isinstance(asked, dict):
                yield {"title": article.get("title"), "context": paragraph.get("context"), **asked}


class _Buffer:
    """The part of a JSON text that is in memory."""

    def __init__(self, file: DataFile, source: Text) -> None:
        self.file, self.text, self.position, self.line, self.ended = file, "", 0, 1, False
        self._source, self._rest = source, b""

    def more(self) -> bool:
        """Read more; False at the end of the file."""
        read = self._source.read()
        data, self._rest = self._rest + read, b""
        if not data:
            self.ended = True
            return False
        try:
            new = data.decode()
        except UnicodeDecodeError as error:
            if not read or error.end < len(data) or len(data) - error.start > 3:
                line = self.line + self.text.count("\n", self.position) + data.count(b"\n", 0, error.start)
                raise InputError(f"{self.file.shown}:{line}: {not_utf8(data)}") from None
            new, self._rest = data[: error.start].decode(), data[error.start :]  # cut within a character
        self.line += self.text.count("\n", 0, self.position)
        self.text, self.position = self.text[self.position :] + new, 0
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

    def take(self) -> Any:
        """The next value, however many reads it spans.

        Raises:
            InputError: it is malformed, or longer than a row may be.
        """
        while True:
            try:
                value, end = DECODER.raw_decode(self.text, self.position)
            except (ValueError, RecursionError) as error:
                if len(self.text) - self.position > MAX_LINE:
                    raise InputError(f"{self.file.shown}:{self.at()}: {too_long(1).problem}") from None
                if isinstance(error, RecursionError) or not self.more():
                    raise self.broken(getattr(error, "msg", "nested too deeply"), getattr(error, "pos", 0)) from None
                continue
            if end == len(self.text) and self.more():
                continue  # a number may continue
            self.position = end
            return value

    def at(self, position: int | None = None) -> int:
        """The line of a position in the text (None: the current position)."""
        return self.line + self.text.count("\n", 0, self.position if position is None else position)

    def broken(self, why: str, position: int | None = None) -> InputError:
        """An error that names the line."""
        return InputError(f"{self.file.shown}:{self.at(position)}: not valid JSON ({why}). Correct the file there")


def _read_list(buffer: _Buffer) -> Iterator[Row | BadRow]:
    """Decode one element after the other, so that each has its line; a malformed element ends the file."""
    buffer.position += 1
    while buffer.peek() != "]":
        line = buffer.at()
        try:
            value = buffer.take()
        except _RepeatedKeyError:
            raise buffer.broken("an object has the same key twice") from None
        if isinstance(value, dict) and isinstance(value.get("paragraphs"), list):
            yield from (Row(line, row) for row in _squad_rows(value))
        else:
            yield _as_row(line, value)
        following = buffer.peek()
        if following == ",":
            buffer.position += 1
        elif following != "]":
            raise buffer.broken("a comma or the end of the list is missing")
