"""The formats of files with rows, by their ending."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from finetune.prepare.formats.arrow import read_arrow, read_parquet
from finetune.prepare.formats.files import BadRow, Lines, Reader, Row, Rows
from finetune.prepare.formats.json import parse_lines, read_json, read_jsonl
from finetune.prepare.formats.separated import read_csv

READERS: Mapping[str, Reader] = {
    ".jsonl": read_jsonl,
    ".ndjson": read_jsonl,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
}


def rows_of(block: Lines | Rows) -> Iterator[Row | BadRow]:
    """The rows of a block; lines are parsed here."""
    yield from parse_lines(block) if isinstance(block, Lines) else block
