"""The readers of files of rows, by extension."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from finetune.errors import InputError
from finetune.prepare.formats.arrow import read_arrow, read_parquet
from finetune.prepare.formats.files import BadRow, DataFile, Lines, Row, Rows, Unread, check_content, open_file
from finetune.prepare.formats.json import parse_lines, read_json
from finetune.prepare.formats.separated import read_csv


class RowReader(Protocol):
    """Yields the blocks of one format."""

    def __call__(self, file: DataFile, /) -> Iterator[Lines | Rows]:
        """Blocks in order.

        Raises:
            InputError: the file cannot be read at all.
        """


def _read_xlsx(file: DataFile) -> Iterator[Lines | Rows]:
    """Import the reader of workbooks when one is read: it loads a parser of XML."""
    from finetune.prepare.formats.xlsx import read_xlsx

    return read_xlsx(file)


READERS: Mapping[str, RowReader] = {
    ".jsonl": read_json,
    ".ndjson": read_json,
    ".json": read_json,
    ".csv": read_csv,
    ".tsv": read_csv,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".xlsx": _read_xlsx,
}


def rows_of(block: Lines | Rows) -> Iterator[Row | BadRow | Unread]:
    """The rows of a block; lines are parsed here."""
    yield from parse_lines(block) if isinstance(block, Lines) else block


def read_blocks(file: DataFile) -> Iterator[Lines | Rows]:
    """Yield the blocks of a file in order.

    Raises:
        InputError: the file is empty, or cannot be read at all.
    """
    with open_file(file) as raw:
        head = raw.read(100)
    if not head:
        raise InputError(f"{file.shown} is empty. Use a file with at least one row")
    check_content(head, file.shown)
    yield from READERS[file.suffix](file)


def read_rows(file: DataFile) -> Iterator[Row | BadRow]:
    """Yield the rows of a file in order.

    Raises:
        InputError: the file is empty, or cannot be read at all.
    """
    for block in read_blocks(file):
        for row in rows_of(block):
            if not isinstance(row, Unread):
                yield row
