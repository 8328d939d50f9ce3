"""Reads rows from Parquet and Arrow files."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from finetune.errors import InputError
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import BLOCK_ROWS, DataFile, Lines, Row, Rows, open_file

MAX_UNPACKED = 2**30  # bytes: a compressed Parquet file must be in memory as a whole, because it is read from its end


def read_parquet(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of rows; class numbers are replaced with their names."""
    with open_parquet(file) as table:
        names = _class_names(table.schema_arrow.metadata)
        yield from _blocks(table.iter_batches(batch_size=BLOCK_ROWS), table.schema_arrow, names)


@contextmanager
def open_parquet(file: DataFile) -> Iterator[Any]:
    """A Parquet file, opened.

    Raises:
        InputError: it is damaged or another format.
    """
    with _name_damage(file, "Parquet"), _seekable(file) as source, parquet.ParquetFile(source) as table:
        yield table


def read_arrow(file: DataFile) -> Iterator[Lines | Rows]:
    """Blocks of rows of an Arrow file, or of an Arrow stream, which is what Hugging Face `datasets` writes."""
    with _name_damage(file, "Arrow"), _seekable(file) as source:
        if source.read(6) == b"ARROW1":
            table = pa.ipc.open_file(source)
            batches: Iterable[Any] = (table.get_batch(number) for number in range(table.num_record_batches))
        else:
            source.seek(0)
            batches = table = pa.ipc.open_stream(source)
        yield from _blocks(batches, table.schema, _class_names(table.schema.metadata))


def _blocks(batches: Iterable[Any], schema: pa.Schema, names: Mapping[str, list[str]]) -> Iterator[Rows]:
    number = 0
    typed = [field.name for field in schema if _is_typed(field.type)]
    for batch in batches:
        for start in range(0, batch.num_rows, BLOCK_ROWS):
            values = _whole_microseconds(batch.slice(start, BLOCK_ROWS)).to_pylist()
            for row in values:
                for name in typed:
                    row[name] = _write_out(row[name])
            yield tuple(Row(number + position, _with_class_names(row, names)) for position, row in enumerate(values, 1))
            number += len(values)


def _is_typed(kind: pa.DataType) -> bool:
    """Whether values of a type are neither texts nor numbers, but can be written out: dates, decimals, bytes of text."""
    if pa.types.is_nested(kind):
        return any(_is_typed(kind.field(number).type) for number in range(kind.num_fields))
    if pa.types.is_dictionary(kind):
        return _is_typed(kind.value_type)
    is_binary = pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_fixed_size_binary(kind)
    return bool(is_binary or pa.types.is_binary_view(kind) or pa.types.is_decimal(kind) or pa.types.is_temporal(kind))


def _write_out(value: Any) -> Any:
    """The value as text where it can be; bytes that are not UTF-8 stay as they are."""
    match value:
        case bytes():
            try:
                return value.decode()
            except UnicodeDecodeError:
                return value
        case Decimal():
            return format(value, "f")
        case datetime():
            return value.isoformat(" ")
        case date() | time():
            return value.isoformat()
        case timedelta():
            return str(value)
        case list():
            return [_write_out(each) for each in value]
        case dict():
            return {name: _write_out(each) for name, each in value.items()}
    return value


def _whole_microseconds(batch: Any) -> Any:
    """The batch with timestamps that Python can hold."""
    for position, field in enumerate(batch.schema):
        kind = field.type
        if pa.types.is_timestamp(kind) and kind.unit == "ns":
            column = batch.column(position).cast(pa.timestamp("us", kind.tz), safe=False)
            batch = batch.set_column(position, field.name, column)
    return batch


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
        items = {name: _item_feature(feature) for name, feature in features.items()}
        return {name: feature["names"] for name, feature in items.items() if feature.get("_type") == "ClassLabel"}
    except (KeyError, TypeError, AttributeError, ValueError):
        return {}


def _item_feature(feature: Any) -> Any:
    """The feature of the items of a list, in either of its forms, or the feature itself."""
    return feature[0] if isinstance(feature, list) else feature.get("feature", feature)


def _with_class_names(values: dict[str, Any], names: Mapping[str, list[str]]) -> dict[str, Any]:
    """The row with the names of its classes; a number that has none, such as the -1 of test sets, is no class."""
    for column, known in names.items():
        value = values.get(column)
        if isinstance(value, int):
            values[column] = _class_name(value, known)
        elif isinstance(value, list):
            values[column] = [_class_name(each, known) for each in value]
    return values


def _class_name(number: object, known: Sequence[str]) -> str | None:
    return known[number] if isinstance(number, int) and 0 <= number < len(known) else None
