"""`slmtune scrub` writes the same files without personal data, and reports counts but never a value."""

from __future__ import annotations

import csv
import gzip
import json
from datetime import date
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from click.testing import CliRunner
from pyarrow import parquet

from finetune.cli import cli
from finetune.errors import InputError, OutputExistsError
from finetune.prepare.scrub_files import ScrubRequest, scrub_files

from .conftest import write_jsonl

TEXT = (
    "Dear all,\n\nwrite to jane@example.com\nor to joe@example.com.\n\n\nBest, 12 High Street,\nSpringfield, MA 01101\n"
)


def scrub(*files: Path, **options: Any) -> dict[str, int]:
    return dict(scrub_files(ScrubRequest(tuple(map(str, files)), **options)).found)


def test_text_keeps_everything_else(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text(TEXT, "utf-8")
    found = scrub(tmp_path / "letter.txt", out=tmp_path / "out")
    assert found == {"ADDRESS": 1, "EMAIL": 2}
    assert (tmp_path / "out" / "letter.txt").read_text("utf-8") == (
        "Dear all,\n\nwrite to [EMAIL]\nor to [EMAIL].\n\n\nBest, [ADDRESS]\n"
    )
    assert scrub(tmp_path / "letter.txt") == found  # only counted


def test_paragraphs_with_personal_data_are_dropped(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text(TEXT, "utf-8")
    result = scrub_files(ScrubRequest((str(tmp_path / "letter.txt"),), tmp_path / "out", policy="drop"))
    assert (tmp_path / "out" / "letter.txt").read_text("utf-8") == "Dear all,\n\n"
    assert [(each.rows, each.changed, each.dropped) for each in result.files] == [(3, 2, 2)]


def test_rows_keep_keys_numbers_and_order_and_columns_explain_values(tmp_path: Path) -> None:
    row = {
        "phone": "785 8949",
        "n": 3,
        "turns": [{"role": "user", "content": "I am jane@example.com."}],
        "mrn": "12345678",
    }
    source = write_jsonl(tmp_path / "rows.jsonl", [row, {"text": "Nothing here."}])
    assert scrub(source, out=tmp_path / "out") == {"EMAIL": 1, "MEDICAL_RECORD": 1, "PHONE": 1}
    first, second = map(json.loads, (tmp_path / "out" / "rows.jsonl").read_text("utf-8").splitlines())
    turns = [{"role": "user", "content": "I am [EMAIL]."}]
    assert first == {"phone": "[PHONE]", "n": 3, "turns": turns, "mrn": "[MEDICAL_RECORD]"}
    assert second == {"text": "Nothing here."}


def test_tables_stay_tables(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "people.csv.gz", "wt", encoding="utf-8") as out:
        out.write('name,mail\n"Doe, Jane",jane@example.com\n')
    assert scrub(tmp_path / "people.csv.gz", out=tmp_path / "out") == {"EMAIL": 1}
    with (tmp_path / "out" / "people.csv").open(encoding="utf-8", newline="") as file:
        assert list(csv.reader(file)) == [["name", "mail"], ["Doe, Jane", "[EMAIL]"]]


def test_parquet_keeps_its_types(tmp_path: Path) -> None:
    rows = [
        {"note": f"mail p{n}@example.com", "day": date(2020, 1, 2), "n": n, "tags": ["a", None]} for n in range(1500)
    ]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, tmp_path / "rows.parquet")
    assert scrub(tmp_path / "rows.parquet", out=tmp_path / "out") == {"EMAIL": 1500}
    made = parquet.read_table(tmp_path / "out" / "rows.parquet")
    assert made.schema == table.schema
    assert made.drop_columns("note") == table.drop_columns("note")
    assert set(made["note"].to_pylist()) == {"mail [EMAIL]"}


def test_rows_of_a_group_share_surrogates(tmp_path: Path) -> None:
    rows = [{"patient": patient, "text": "mail jane@bank.com"} for patient in ("a", "a", "b")]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    scrub(source, out=tmp_path / "out", policy="surrogate", group_by="patient")
    made = [json.loads(line)["text"] for line in (tmp_path / "out" / "rows.jsonl").read_text("utf-8").splitlines()]
    assert made[0] == made[1] != made[2]


def test_what_cannot_be_done_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "jane@example.com"}])
    with pytest.raises(OutputExistsError):
        scrub(source, out=tmp_path)
    (tmp_path / "a.html").write_text("<p>jane@example.com", "utf-8")
    with pytest.raises(InputError, match=r"a\.html is in a format that slmtune scrub does not write"):
        scrub(source, tmp_path / "a.html", out=tmp_path / "out")
    other = write_jsonl(tmp_path / "more" / "rows.jsonl", [{"text": "x"}])
    with pytest.raises(InputError, match=r"2 files are called rows\.jsonl"):
        scrub(source, other, out=tmp_path / "out")
    (tmp_path / "bad.jsonl").write_text('{"text": "jane@example.com"}\n{"text": \n', "utf-8")
    with pytest.raises(InputError, match=r"bad\.jsonl:2: "):
        scrub(tmp_path / "bad.jsonl", out=tmp_path / "out")
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_only_explanations_show_a_value(tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "mail jane@example.com"}])
    run = CliRunner().invoke
    plain = run(cli, ["scrub", str(source)])
    assert "EMAIL 1" in plain.stdout
    assert "nothing was written" in plain.stdout
    as_json = run(cli, ["scrub", str(source), "--json"])
    assert json.loads(as_json.stdout)["found"] == {"EMAIL": 1}
    assert "jane@" not in plain.output + as_json.output
    explained = run(cli, ["scrub", str(source), "--explain"]).stdout
    assert "rows.jsonl:1 text: EMAIL 'jane@example.com' by email (0.8): a mailbox and a domain" in explained
    assert run(cli, ["scrub", str(source), "--explain", "--json"]).exit_code == 2
