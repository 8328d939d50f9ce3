"""Reading rows out of files: what goes in comes out, and what is broken is named with its line."""

from __future__ import annotations

import csv
import gzip
import io
import json
import string
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from finetune.errors import InputError, RecordError, SlmtuneError
from finetune.prepare.formats.files import BadRow, DataFile, Row
from finetune.prepare.formats.readers import read_rows

from ..conftest import Preparer, questions, write_jsonl

SUFFIXES = ["jsonl", "json", "csv", "tsv", "parquet", "arrow", "jsonl.gz", "csv.zst"]
IN_ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ROWS = st.lists(st.dictionaries(TEXTS, JSON_VALUES, min_size=1, max_size=4), min_size=2, max_size=6)
# The csv module cannot write a NUL, and a row of blanks only is taken for a blank line.
CELLS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
TABLES = st.lists(st.tuples(CELLS, CELLS).map(lambda cells: (cells[0] + ".", cells[1])), min_size=1, max_size=6)


def read(path: Path) -> list[Row | BadRow]:
    return list(read_rows(DataFile(path, path.name, path.name)))


def values(path: Path) -> list[dict[str, Any]]:
    found = []
    for row in read(path):
        assert isinstance(row, Row)
        found.append(dict(row.values))
    return found


@IN_ONE_FOLDER
@given(rows=ROWS, ascii_only=st.booleans(), bom=st.booleans(), blanks=st.integers(0, 2))
def test_jsonl_gives_back_every_row_and_its_line(
    rows: list[dict[str, Any]], ascii_only: bool, bom: bool, blanks: int, tmp_path: Path
) -> None:
    lines = ("\n" * (blanks + 1)).join(json.dumps(row, ensure_ascii=ascii_only) for row in rows)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" * bom + lines.encode())
    assert values(path) == rows
    assert [row.line for row in read(path)] == [1 + number * (blanks + 1) for number in range(len(rows))]


@IN_ONE_FOLDER
@given(rows=ROWS, indent=st.sampled_from([None, 2]))
def test_json_list_gives_back_every_row_and_its_line(
    rows: list[dict[str, Any]], indent: int | None, tmp_path: Path
) -> None:
    path = tmp_path / "rows.json"
    text = "[\n" + ",\n".join(json.dumps(row, indent=indent) for row in rows) + "\n]\n"
    path.write_text(text, "utf-8")
    assert values(path) == rows
    lines = text.splitlines()
    assert all(lines[row.line - 1].startswith("{") for row in read(path))


@IN_ONE_FOLDER
@given(
    rows=TABLES,
    separator=st.sampled_from(",;\t|"),
    ending=st.sampled_from(["\n", "\r\n"]),
    quoting=st.sampled_from([csv.QUOTE_ALL, csv.QUOTE_MINIMAL]),
)
def test_csv_gives_back_every_cell(
    rows: list[tuple[str, str]], separator: str, ending: str, quoting: Literal[0, 1], tmp_path: Path
) -> None:
    if any("\r" in cell for row in rows for cell in row):
        quoting = csv.QUOTE_ALL  # Python 3.11 forgets to quote a carriage return, and what it writes is no CSV then
    text = io.StringIO(newline="")
    writer = csv.writer(text, delimiter=separator, lineterminator=ending, quoting=quoting)
    writer.writerow(("question", "answer"))
    writer.writerows(rows)
    path = tmp_path / ("rows.tsv" if separator == "\t" else "rows.csv")
    path.write_bytes(text.getvalue().encode())
    assert [(row["question"], row["answer"]) for row in values(path)] == rows


@IN_ONE_FOLDER
@given(
    data=st.binary(min_size=1, max_size=200),
    suffix=st.sampled_from(SUFFIXES),
)
def test_arbitrary_bytes_are_read_or_refused_but_never_crash(data: bytes, suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(data)
    with suppress(SlmtuneError):  # anything else would be a crash
        assert all(isinstance(row, Row | BadRow) for row in read(path))


def test_parquet_rows_come_with_their_numbers(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    rows = [{"question": f"q{n}", "tags": ["a", "b"], "meta": {"n": n}} for n in range(3000)]
    parquet.write_table(pa.Table.from_pylist(rows), path)
    assert values(path) == rows
    assert [row.line for row in read(path)][-1] == 3000


def test_parquet_class_labels_are_read_as_their_names(tmp_path: Path) -> None:
    import datasets

    names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["down", "up"])})
    path = tmp_path / "rows.parquet"
    datasets.Dataset.from_dict({"text": ["a", "b"], "label": [1, 0]}, features=names).to_parquet(path)
    assert [row["label"] for row in values(path)] == ["up", "down"]


def test_wrapped_and_lined_json_are_told_apart(tmp_path: Path) -> None:
    rows = questions(2)
    for name, text in {
        "wrapped": json.dumps({"data": rows}, indent=1),
        "lines": "\n".join(map(json.dumps, rows)),
    }.items():
        path = tmp_path / f"{name}.json"
        path.write_text(text, "utf-8")
        assert values(path) == rows


def test_csv_of_a_spreadsheet_with_byte_order_mark_and_semicolons(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes('\ufeffquestion;"answer, long"\r\nQ;"A;\r\nB"\r\n\r\nR;C\r\n'.encode())
    assert values(path) == [{"question": "Q", "answer, long": "A;\r\nB"}, {"question": "R", "answer, long": "C"}]
    assert [row.line for row in read(path)] == [2, 5]


def test_cell_of_a_megabyte_is_read(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(f"question,answer\nQ,{'x' * 1_000_000}\n", "utf-8")
    assert len(values(path)[0]["answer"]) == 1_000_000


# --- broken files -----------------------------------------------------------------------------------------------------

BROKEN: dict[str, tuple[str, bytes, str]] = {
    "broken JSON line": ("r.jsonl", b'{"text": "a"}\n{"text": \n', "r.jsonl:2: not valid JSON"),
    "row that is a list": ("r.jsonl", b'{"text": "a"}\n[1]\n', "r.jsonl:2: the row is a list, not an object"),
    "row that is null": ("r.jsonl", b"null\n", "r.jsonl:1: the row is null, not an object"),
    "line that is no UTF-8": ("r.jsonl", b'{"text": "\xc3\xa9"}\n{"text": "\xe9"}\n', "r.jsonl:2: not valid UTF-8"),
    "binary file": ("r.jsonl", b'{"text": "a\0\0\0"}', "r.jsonl"),
    "key twice": ("r.jsonl", b'{"text": "a", "text": "b"}', "r.jsonl:1: an object has the same key twice"),
    "key twice in a list": ("r.json", b'[{"text": "a"},\n {"text": "a", "text": "b"}]', "r.json:2: not valid JSON"),
    "number of 5000 digits": ("r.jsonl", b'{"text": ' + b"1" * 5000 + b"}\n", "r.jsonl:1: not valid JSON"),
    "endless nesting": ("r.jsonl", b"[" * 200_000, "r.jsonl:1: not valid JSON"),
    "broken element of a list": ("r.json", b'[{"text": "a"},\n{"text": }]', "r.json:2: not valid JSON"),
    "list without its end": ("r.json", b'[{"text": "a"}\n', "r.json:2: not valid JSON (a comma or the end"),
    "broken object": ("r.json", b'{"text": "a"', "r.json:1: not valid JSON"),
    "JSON that is no UTF-8": ("r.json", b'[{"text": "\xc3\xa9"},\n{"text": "\xe9"}]', "r.json:2: not valid UTF-8"),
    "CSV that is no UTF-8": ("r.csv", b"text,label\n\xc3\xa9,b\nc\xe9,d\n", "r.csv:3: not valid UTF-8"),
    "CSV row with too many cells": ("r.csv", b"text,label\na,b,c\n", "r.csv:2: the row has 3 cells, the header 2"),
    "CSV row with too few cells": ("r.csv", b"text,label\na\n", "r.csv:2: the row has 1 cells, the header 2"),
    "CSV with an open quote": ("r.csv", b'text,label\n"a,b\n', "r.csv:2: not valid CSV"),
    "CSV with a column twice": ("r.csv", b"text,text\na,b\n", "r.csv:1: the column text occurs twice"),
    "CSV of a header only": ("r.csv", b"text,label\n", "r.csv has no rows"),
    "blank lines only": ("r.jsonl", b"\n\n", "r.jsonl has no rows"),
    "empty file": ("r.jsonl", b"", "r.jsonl is empty"),
    "empty CSV": ("r.csv", b"", "r.csv is empty"),
    "damaged Parquet": ("r.parquet", b"PAR1 and nothing else", "r.parquet is not a Parquet file"),
}


@pytest.mark.parametrize(("name", "data", "says"), BROKEN.values(), ids=BROKEN)
def test_broken_file_is_named_with_its_line_and_leaves_nothing(
    name: str, data: bytes, says: str, prepared: Preparer, tmp_path: Path
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError) as error:
        prepared(tmp_path / name)
    assert says in str(error.value)
    assert error.value.exit_code == 2
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_broken_lines_can_be_skipped(prepared: Preparer, tmp_path: Path) -> None:
    lines = [b'{"text": "\xc3\xa4"}', b"{", b"[]", b'{"text": "\xe9"}', b'{"text": "b"}']
    (tmp_path / "r.jsonl").write_bytes(b"\n".join(lines))
    made = prepared(tmp_path / "r.jsonl", on_error="skip", quality=False)
    assert sorted(made.texts) == ["b", "ä"]
    assert made.result.dropped == {"broken_json": 1, "no_object": 1, "not_utf8": 1}
    assert [drop["id"] for drop in made.drops] == ["r/r.jsonl:2", "r/r.jsonl:3", "r/r.jsonl:4"]


def test_no_row_left_is_an_error_even_when_skipping(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_bytes(b"{\n[]\n")
    with pytest.raises(InputError, match=r"No rows are left: 2 read"):
        prepared(tmp_path / "r.jsonl", on_error="skip")


def test_unreadable_file_says_why(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").symlink_to(tmp_path / "gone.jsonl")
    with pytest.raises(InputError, match=r"r\.jsonl"):
        prepared(tmp_path / "r.jsonl")


def test_errors_in_a_folder_name_the_file(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "a.jsonl", questions(2))
    (tmp_path / "in" / "b.jsonl").write_text("{", "utf-8")
    with pytest.raises(RecordError, match=rf"{'in'}/b\.jsonl:1"):
        prepared(tmp_path / "in")


def test_letters_of_all_scripts_survive(prepared: Preparer, tmp_path: Path) -> None:
    text = "Größe 大きさ размер حجم 🙂 " + string.punctuation
    assert prepared(write_jsonl(tmp_path / "r.jsonl", [{"text": text}]), quality=False).texts == [text]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32", "cp1252", "latin-1"])
@pytest.mark.parametrize("suffix", ["jsonl", "json", "csv"])
def test_every_common_encoding_gives_the_same_rows(encoding: str, suffix: str, tmp_path: Path) -> None:
    rows = [
        {"question": f"Was kostet Öl für Gäste, Nummer {n}?", "answer": "Zwölf größere Stücke à 5 £."}
        for n in range(40)
    ]
    text = {
        "jsonl": "\n".join(json.dumps(row, ensure_ascii=False) for row in rows),
        "json": json.dumps(rows, ensure_ascii=False, indent=1),
        "csv": "question;answer\r\n" + "".join(f"{row['question']};{row['answer']}\r\n" for row in rows),
    }[suffix]
    path = tmp_path / f"rows.{suffix}"
    path.write_bytes(text.encode(encoding))
    assert values(path) == rows


@pytest.mark.parametrize("wrap", ["gz", "zst", "zip"])
def test_compressed_rows_are_the_same_rows(wrap: str, tmp_path: Path) -> None:
    from finetune.prepare.sources.local import find_files

    data = "\n".join(map(json.dumps, questions(3000))).encode()
    path = tmp_path / f"rows.jsonl.{wrap}"
    if wrap == "zip":
        path = tmp_path / "rows.zip"
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inside/rows-train.jsonl", data)
            archive.writestr("__MACOSX/inside/._rows-train.jsonl", b"junk")
    elif wrap == "gz":
        path.write_bytes(gzip.compress(data))
    else:
        path.write_bytes(pa.Codec("zstd").compress(data).to_pybytes())
    (file,) = find_files(str(path)).files
    assert [row.values for row in read_rows(file) if isinstance(row, Row)] == questions(3000)


def test_rows_longer_than_the_limit_are_refused_and_the_next_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from finetune.prepare.formats import json as format_json

    monkeypatch.setattr(format_json, "MAX_LINE", 2**21)
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"text": "a"}\n{"text": "' + b"x" * 2**23 + b'"}\n{"text": "b"}\n')
    first, second, third = read(path)
    assert isinstance(second, BadRow)
    assert (second.line, second.reason) == (2, "too_long")
    assert (first, third) == (Row(1, {"text": "a"}), Row(3, {"text": "b"}))


def test_a_list_of_any_length_is_read_piece_by_piece(tmp_path: Path) -> None:
    rows = [{"question": f"Größe {n}?", "answer": "ä" * 100} for n in range(20_000)]  # several blocks
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False, indent=0), "utf-8")
    assert values(path) == rows
    assert [row.line for row in read(path)][-1] == 2 + 4 * 19_999


def test_articles_of_squad_become_a_row_a_question(tmp_path: Path) -> None:
    asked = [
        {"id": str(n), "question": f"What is {n}?", "answers": [{"text": f"it {n}", "answer_start": 0}]} for n in (1, 2)
    ]
    data = [{"title": "T", "paragraphs": [{"context": "C", "qas": asked}]}]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps({"version": "1", "data": data}), "utf-8")
    assert values(path) == [{"title": "T", "context": "C", **question} for question in asked]


def test_arrow_files_and_streams_are_read(tmp_path: Path) -> None:
    table = pa.Table.from_pylist(questions(2500))
    with pa.OSFile(str(tmp_path / "file.arrow"), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    with pa.OSFile(str(tmp_path / "stream.arrow"), "wb") as sink, pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    assert values(tmp_path / "file.arrow") == values(tmp_path / "stream.arrow") == questions(2500)


def test_compressed_parquet_is_read(tmp_path: Path) -> None:
    sink = io.BytesIO()
    parquet.write_table(pa.Table.from_pylist(questions(5)), sink)
    path = tmp_path / "rows.parquet.gz"
    path.write_bytes(gzip.compress(sink.getvalue()))
    assert values(path) == questions(5)


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet", "leaflet.txt"])
def test_a_pointer_of_git_lfs_is_named(name: str, prepared: Preparer, tmp_path: Path) -> None:
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 12\n"
    (tmp_path / name).write_text(pointer, "utf-8")
    with pytest.raises(InputError, match=rf"{name} is a Git LFS pointer"):
        prepared(tmp_path / name)


def test_numbers_are_written_with_the_digits_that_they_have(prepared: Preparer, tmp_path: Path) -> None:
    numbers = [("6.02e23", "6.02e23"), ("12.0", "12"), ("0.1", "0.1"), ("90071992547409931234", "90071992547409931234")]
    rows = "".join(f'{{"question": "What is {text}?", "answer": {text}}}\n' for text, _ in numbers)
    (tmp_path / "r.jsonl").write_text(rows, "utf-8")
    answers = {row.answer for row in prepared(tmp_path / "r.jsonl", dedup=False).rows}
    assert answers == {written for _, written in numbers}


# Each place in which a table can carry something, and the word that must come out of it or be counted.
CANARIES: dict[str, tuple[str, bytes]] = {
    "cell beyond the header": ("r.csv", b"question,answer\nWhat is it?,A mast\nWhat?,A mast,canary\n"),
    "comment": ("r.csv", b"# canary\nquestion,answer\nWhat is it?,A mast\n"),
    "row with an open quote": ("r.csv", b'question,answer\nWhat is it?,A mast\n"canary,A mast\n'),
    "key beside the rows": ("r.json", b'{"data": [{"question": "What is it?", "answer": "A mast"}], "canary": 1}'),
    "list beside the rows": ("r.json", b'{"data": [{"question": "What?", "answer": "A mast"}], "canary": [{"a": 1}]}'),
    "value after a list": ("r.json", b'[{"question": "What is it?", "answer": "A mast"}]\ncanary\n'),
    "text after an object": ("r.json", b'{"question": "What is it?", "answer": "A mast"}\ncanary\n'),
    "bytes that are not UTF-8": ("r.csv", b"question,answer\nWhat is it?,A mast\nWhere?,\xc3\xa9\nWho?,canary\xe9\n"),
}


@pytest.mark.parametrize(("name", "data"), CANARIES.values(), ids=CANARIES)
def test_what_does_not_reach_the_corpus_is_told(name: str, data: bytes, prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    result = prepared(tmp_path / name, on_error="skip", quality=False).result
    assert result.dropped or result.unused
