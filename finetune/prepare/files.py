"""Rows out of files: JSON Lines, JSON, CSV, TSV and Parquet, each row with its line so that an error can name it."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from finetune.errors import InputError
from finetune.records import Split

WRAPPERS = {"data", "rows", "examples", "records"}  # {"data": [row, row]} is a list of rows
SEPARATORS = ",;\t|"
csv.field_size_limit(2**31 - 1)  # an article in one cell is no error


@dataclass(frozen=True, slots=True)
class Row:
    """A row and its line, counted from 1 (in Parquet and wrapped JSON, which have none, its number)."""

    line: int
    values: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that cannot be read, and why; `reason` is the word that counts are kept under."""

    line: int
    reason: str
    problem: str


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a source: where it lies, its name within the source, how messages call it, the split its name gives."""

    path: Path
    name: str
    shown: str
    split: Split | None = None


def read_file(file: DataFile) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order.

    Raises:
        InputError: the file is empty, or cannot be read at all.
    """
    reader = READERS[file.path.suffix.lower()]
    try:
        if not file.path.stat().st_size:
            raise InputError(f"{file.shown} is empty. Give a file with at least one row")
        yield from reader(file)
    except OSError as error:
        raise InputError(
            f"{file.shown} cannot be read ({error.strerror or error}). Check the path and its permissions"
        ) from None


def _read_jsonl(file: DataFile) -> Iterator[Row | BadRow]:
    with file.path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            try:
                text = line.decode("utf-8-sig" if number == 1 else "utf-8").strip()
            except UnicodeDecodeError:
                yield BadRow(number, "not_utf8", _not_utf8(line))
                continue
            if text:
                yield _parse_line(number, text)


def _parse_line(number: int, text: str) -> Row | BadRow:
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        return BadRow(
            number, "broken_json", f"not valid JSON ({error.msg}, column {error.colno}). Each line must be one object"
        )
    except (ValueError, RecursionError):
        return BadRow(number, "broken_json", "not valid JSON (a number is too long, or objects are nested too deeply)")
    return _as_row(number, value)


def _as_row(number: int, value: object) -> Row | BadRow:
    if isinstance(value, dict):
        return Row(number, value)
    kind = {list: "a list", str: "a text", type(None): "null"}.get(type(value), "a number")
    return BadRow(
        number, "no_object", f"the row is {kind}, not an object with named fields. Write one object for each row"
    )


def _read_json(file: DataFile) -> Iterator[Row | BadRow]:
    text = _decode(file)
    start = len(text) - len(text.lstrip())
    if text[start : start + 1] == "[":
        yield from _read_array(file, text, start + 1)
        return
    try:
        value, end = json.JSONDecoder().raw_decode(text, start)
    except (ValueError, RecursionError):
        yield from _read_jsonl(file)  # names the first broken line
        return
    if text[end:].strip():
        yield from _read_jsonl(file)  # JSON Lines under another name
        return
    inner = (
        next(iter(value.values())) if isinstance(value, dict) and len(value) == 1 and set(value) <= WRAPPERS else None
    )
    for number, row in enumerate(inner if isinstance(inner, list) else [value], 1):
        yield _as_row(number, row)


def _read_array(file: DataFile, text: str, position: int) -> Iterator[Row | BadRow]:
    """Decode one element after the other, so that each has its line; what is broken ends the file."""
    decoder = json.JSONDecoder()
    line, counted = 1, 0
    while True:
        position = _skip_blanks(text, position)
        line, counted = line + text.count("\n", counted, position), position
        if text[position : position + 1] == "]":
            break
        try:
            value, position = decoder.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "lineno", line)
            raise InputError(
                f"{file.shown}:{at}: not valid JSON ({getattr(error, 'msg', 'nested too deeply')})"
            ) from None
        yield _as_row(line, value)
        position = _skip_blanks(text, position)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            at = 1 + text.count("\n", 0, position)
            raise InputError(f"{file.shown}:{at}: not valid JSON (a comma or the end of the list is missing)")


def _skip_blanks(text: str, position: int) -> int:
    while text[position : position + 1] in {" ", "\t", "\r", "\n"}:
        position += 1
    return position


def _read_csv(file: DataFile) -> Iterator[Row | BadRow]:
    text = _decode(file)
    separator = "\t" if file.path.suffix.lower() == ".tsv" else _separator(text)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    names: list[str] | None = None
    line = 1
    try:
        for cells in reader:
            first, line = line, reader.line_num + 1
            if not any(cell.strip() for cell in cells):
                continue
            if names is None:
                names = _header(file, cells)
            else:
                yield _csv_row(first, names, cells)
    except csv.Error as error:
        raise InputError(
            f"{file.shown}:{line}: not valid CSV ({error}). Put cells that hold quotes, separators or line breaks in "
            "double quotes"
        ) from None


def _header(file: DataFile, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = sorted({name for name in names if name and names.count(name) > 1})
    if twice:
        raise InputError(f"{file.shown}:1: the column {', '.join(twice)} occurs twice. Give each column its own name")
    return names


def _csv_row(line: int, names: list[str], cells: list[str]) -> Row | BadRow:
    surplus = any(cell.strip() for cell in cells[len(names) :])
    if surplus or len(cells) < len(names):
        problem = (
            f"the row has {len(cells)} cells, the header {len(names)}. Put cells that hold separators in double quotes"
        )
        return BadRow(line, "broken_csv", problem)
    return Row(line, {name: cell for name, cell in zip(names, cells, strict=False) if name})


def _separator(text: str) -> str:
    header = re.sub(r'"[^"]*"', "", text.lstrip("\r\n").split("\n", 1)[0])
    return max(SEPARATORS, key=header.count)


def _read_parquet(file: DataFile) -> Iterator[Row | BadRow]:
    import pyarrow as pa
    from pyarrow import parquet

    number = 0
    try:
        with parquet.ParquetFile(file.path) as table:
            names = _class_names(table.schema_arrow.metadata)
            for batch in table.iter_batches(batch_size=2048):
                for values in batch.to_pylist():
                    number += 1
                    yield Row(number, _with_class_names(values, names))
    except pa.ArrowInvalid:
        raise InputError(f"{file.shown} is no Parquet file, or a damaged one. Write it again") from None


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of integer labels, as Hugging Face `datasets` keeps them in a Parquet file's metadata."""
    try:
        features = json.loads((metadata or {})[b"huggingface"])["info"]["features"]
        return {name: feature["names"] for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _with_class_names(values: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    for column, known in names.items():
        number = values.get(column)
        if isinstance(number, int) and 0 <= number < len(known):
            values[column] = known[number]
    return values


def _decode(file: DataFile) -> str:
    data = file.path.read_bytes()
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = 1 + data.count(b"\n", 0, error.start)
        raise InputError(f"{file.shown}:{line}: {_not_utf8(data)}") from None


def _not_utf8(data: bytes) -> str:
    guess = "UTF-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "CP1252"
    return f"not valid UTF-8. Convert the file, for example with: iconv -f {guess} -t UTF-8"


READERS: Mapping[str, Callable[[DataFile], Iterator[Row | BadRow]]] = {
    ".jsonl": _read_jsonl,
    ".ndjson": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_csv,
    ".parquet": _read_parquet,
}
