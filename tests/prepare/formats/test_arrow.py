"""Values of Parquet and Arrow columns that are neither texts nor numbers are written out, and folders of `datasets` read."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from finetune.prepare.formats.files import DataFile, Row
from finetune.prepare.formats.readers import read_rows

from ..conftest import Preparer

DAY = datetime(2024, 5, 1, 8, 30, tzinfo=UTC)
VALUES: dict[str, tuple[pa.DataType, Any, Any]] = {
    "bytes of text": (pa.binary(), "Mât".encode(), "Mât"),
    "bytes of no text": (pa.binary(), b"\x89PNG\xff", b"\x89PNG\xff"),
    "categories": (pa.dictionary(pa.int32(), pa.string()), "up", "up"),
    "decimal": (pa.decimal128(9, 2), Decimal("19.90"), "19.90"),
    "large decimal": (pa.decimal128(38, 0), Decimal(10**30), "1" + "0" * 30),
    "date": (pa.date32(), date(2024, 5, 1), "2024-05-01"),
    "time of day": (pa.time64("us"), time(8, 30), "08:30:00"),
    "time": (pa.timestamp("us"), datetime(2024, 5, 1, 8, 30), "2024-05-01 08:30:00"),
    "time in a zone": (pa.timestamp("us", "UTC"), DAY, "2024-05-01 08:30:00+00:00"),
    "time in nanoseconds": (pa.timestamp("ns", "UTC"), DAY, "2024-05-01 08:30:00+00:00"),
    "nested": (
        pa.list_(pa.struct({"on": pa.date32(), "text": pa.binary()})),
        [{"on": date(2024, 5, 1), "text": b"A mast"}],
        [{"on": "2024-05-01", "text": "A mast"}],
    ),
    "null": (pa.decimal128(9, 2), None, None),
}


@pytest.mark.parametrize(("kind", "value", "expected"), VALUES.values(), ids=VALUES)
def test_typed_values_are_written_out(kind: pa.DataType, value: Any, expected: Any, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    parquet.write_table(pa.table({"answer": pa.array([value], kind)}), path)
    assert list(read_rows(DataFile(path, path.name, path.name))) == [Row(1, {"answer": expected})]


def test_a_folder_of_datasets_is_read_with_its_splits(prepared: Preparer, tmp_path: Path) -> None:
    import datasets

    rows = {name: [{"question": f"What is {name} {n}?", "answer": f"It is {n}."} for n in range(4)] for name in "ab"}
    splits = {"train": datasets.Dataset.from_list(rows["a"]), "test": datasets.Dataset.from_list(rows["b"])}
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "saved"))
    assert prepared(tmp_path / "saved").result.splits == {"train": 4, "validation": 0, "test": 4}
