"""Reads rows from Parquet and Arrow files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from finetune.errors import InputError
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import BLOCK_ROWS, DataFile, Lines, Row, Rows, open_file

MAX_UNPACKED = 2**30  # bytes: a compressed Parquet file must be in memory as a whole, because it is read from its end


def read_parquet(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of rows; class numbers are replaced with their names."""
    with _name_damage(file, "Parquet"), _seekable(file) as source, parquet.ParquetFile(source) as table:
        names = _class_names(table.schema_arrow.metadata)
        yield from _blocks(table.iter_batches(batch_size=BLOCK_ROWS), names)


def read_arrow(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of rows of an Arrow file, or of an Arrow stream, which is what Hugging Face `datasets` writes."""
    with _name_damage(file, "Arrow"), _seekable(file) as source:
        if source.read(6) == b"ARROW1":
            table = pa.ipc.open_file(source)
            batches: Iterable[Any] = (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            source.seek(0)
            batches = table = pa.ipc.open_stream(source)
        yield from _blocks(batches, _class_names(table.schema.metadata))


def _blocks(batches: Iterable[Any], names: Mapping[str, list[str]]) -> Iterator[Rows]:
    number = 0
    for batch in batches:
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            values = batch.slice(start, BLOCK_ROWS).to_pylist()
            yield tuple(Row(number + position, _with_class_names(row, names)) for position, row in enumerate(values, 1))
            number += len(values)


@contextmanager
def _seekable(file: DataFile) -> Iterator[Any]:
    with open_file(file) as raw:
        if file.member is None and inner_name(file.path, None) == file.path.name:
            yield raw
            return
        data = raw.read(MAX_UNPACKED + 1)
        if len(data) > MAX_UNPACKED:
            raise InputError(f"{file.shown} unpacks to more than {MAX_UNPACKED // 2**30} GiB. Unpack it first")
        yield io.BytesIO(data)


@contextmanager
def _name_damage(file: DataFile, format: str) -> Iterator[None]:
    try:
        yield
    except (pa.ArrowInvalid, pa.ArrowKeyError, pa.ArrowNotImplementedError, pa.ArrowTypeError, EOFError):
        raise InputError(f"{file.shown} is not a {format} file, or is damaged. Write it again") from None


def _class_names(metadata: Mapping[bytes, bytes] | None) -> dict[str, list[str]]:
    """Names of integer labels, as Hugging Face `datasets` keeps them in a file's metadata."""
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
