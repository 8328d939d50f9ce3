"""The rows of files that `slmtune scrub` reads, and the same files with other texts in them."""

from __future__ import annotations

import codecs
import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from finetune.errors import InputError, RecordError
from finetune.prepare.formats.arrow import open_parquet
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import BLOCK_ROWS, BadRow, DataFile, Text, open_file
from finetune.prepare.formats.readers import read_rows

MAX_PARAGRAPH = 2**20  # characters: a longer one is cut at a line
PARAGRAPH_END = re.compile(r"(?:\r?\n[ \t]*){2,}")
TEXTS = frozenset((".txt", ".text", ".md", ".markdown", ".rst", ".log"))
LINES = frozenset((".jsonl", ".ndjson", ".json"))
TABLES = {".csv": ",", ".tsv": "\t"}
PARQUET = ".parquet"
READABLE = "txt, md, jsonl, json, csv, tsv and parquet"

Write = Callable[[Any], object]


@dataclass(frozen=True, slots=True)
class FileRow:
    """A paragraph or a row: its line (or its number in files without lines) and its text, or its values by column."""

    line: int
    value: Any


def check_format(file: DataFile) -> None:
    """Refuse a file that cannot be written again with other texts.

    Raises:
        InputError: names the formats that can.
    """
    if file.suffix not in TEXTS | LINES | TABLES.keys() | {PARQUET}:
        raise InputError(
            f"{file.shown} is in a format that slmtune scrub does not write. It reads and writes {READABLE}; of documents and "
            "other tables, slmtune prepare makes a corpus"
        )


def read_file(file: DataFile) -> Iterator[FileRow]:
    """The paragraphs or rows of a file.

    Raises:
        InputError: it cannot be read, or is empty.
        RecordError: a row cannot be read; names its line.
    """
    if file.suffix in TEXTS:
        yield from _paragraphs(file)
    elif file.suffix == PARQUET:
        with open_parquet(file) as table:
            rows = (values for batch in table.iter_batches(batch_size=BLOCK_ROWS) for values in batch.to_pylist())
            for number, values in enumerate(rows, 1):
                yield FileRow(number, values)
    else:
        for row in read_rows(file):
            if isinstance(row, BadRow):
                raise RecordError(f"{file.shown}:{row.line}", row.problem)
            yield FileRow(row.line, row.values)


def _paragraphs(file: DataFile) -> Iterator[FileRow]:
    """The paragraphs of a text, each with the blank lines after it."""
    decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
    line, rest = 1, ""
    with open_file(file) as raw:
        text = Text(file, raw)
        while data := text.read():
            rest += decoder.decode(data)
            at = 0
            for end in (match.end() for match in PARAGRAPH_END.finditer(rest)):
                if end < len(rest):  # else more blank lines may follow
                    yield FileRow(line, rest[at:end])
                    line, at = line + rest.count("\n", at, end), end
            rest = rest[at:]
            if len(rest) > MAX_PARAGRAPH:
                end = rest.rfind("\n") + 1 or len(rest)
                yield FileRow(line, rest[:end])
                line, rest = line + rest.count("\n", 0, end), rest[end:]
    if rest:
        yield FileRow(line, rest)


def output_name(file: DataFile) -> str:
    """The name of the file to write: without compression, and of JSON always one row per line."""
    name = PurePosixPath(inner_name(file.path, file.member))
    return name.with_suffix(".jsonl").name if name.suffix.lower() == ".json" else name.name


@contextmanager
def writing_file(file: DataFile, path: Path) -> Iterator[Write]:
    """A function that writes the value of a row to a file in the format of `file`."""
    if file.suffix == PARQUET:
        with open_parquet(file) as table:
            schema = table.schema_arrow
        with parquet.ParquetWriter(path, schema) as writer:
            block: list[Mapping[str, Any]] = []

            def keep(value: Mapping[str, Any]) -> None:
                block.append(value)
                if len(block) == BLOCK_ROWS:
                    writer.write_table(pa.Table.from_pylist(block, schema))
                    block.clear()

            yield keep
            if block:
                writer.write_table(pa.Table.from_pylist(block, schema))
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        if file.suffix in TEXTS:
            yield out.write
        elif file.suffix in LINES:
            yield lambda value: out.write(json.dumps(value, ensure_ascii=False) + "\n")
        else:
            yield _table_writer(out, TABLES[file.suffix])


def _table_writer(out: Any, separator: str) -> Write:
    table = csv.writer(out, delimiter=separator, lineterminator="\n")
    names: list[str] = []

    def write(value: Mapping[str, Any]) -> None:
        if not names:
            names.extend(value)
            table.writerow(names)
        table.writerow([value.get(name) for name in names])

    return write
