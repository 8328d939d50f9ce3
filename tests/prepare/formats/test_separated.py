"""Tables whose quotes, separators or first lines are not as the format wants them: a bad line costs no other line."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.prepare.formats.files import BadRow, DataFile, Row, Unread
from finetune.prepare.formats.readers import read_blocks, read_rows, rows_of

from ..conftest import Preparer


def read(path: Path, text: str | bytes) -> list[Row | BadRow]:
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return list(read_rows(DataFile(path, path.name, path.name)))


def cells(rows: Iterable[Row | BadRow]) -> list[tuple[str, ...] | int]:
    """The cells of good rows, and the lines of broken ones."""
    return [tuple(row.values.values()) if isinstance(row, Row) else row.line for row in rows]


STRAY: dict[str, tuple[str, str, list[tuple[str, ...] | int]]] = {
    "quote within a quoted cell": (
        "r.csv",
        'text,label\n"A mast","up"\n"A rope of 5" or so","down"\n"A sail","up"\n',
        [("A mast", "up"), 3, ("A sail", "up")],
    ),
    "open quote that a later row closes": (
        "r.csv",
        'text,label\n"A mast,up\nA rope,down\nA sail,up\nAn oar",down\nA keel,up\n',
        [2, ("A rope", "down"), ("A sail", "up"), ('An oar"', "down"), ("A keel", "up")],
    ),
    "open quote in the last column": (
        "r.csv",
        'label;text\nup;"A mast\ndown;A rope\nup;A sail"\ndown;An oar\n',
        [2, ("down", "A rope"), ("up", 'A sail"'), ("down", "An oar")],
    ),
    "open quote that nothing closes": (
        "r.csv",
        'text,label\nA mast,up\n"A rope,down\nA sail,up\n',
        [("A mast", "up"), 3, ("A sail", "up")],
    ),
    "line breaks within cells": (
        "r.csv",
        'text,label\n"Dear crew,\nwe sail, all of us, at dawn.\n\nBring oars",up\n"Name,place\n",down\n',
        [("Dear crew,\nwe sail, all of us, at dawn.\n\nBring oars", "up"), ("Name,place\n", "down")],
    ),
    "table within a cell": (
        "r.csv",
        'question,answer\n"Make a table","mast,up\nrope,down"\n',
        [("Make a table", "mast,up\nrope,down")],
    ),
    "tabs and literal quotes": (
        "r.tsv",
        'text\tlabel\nA mast\tup\n"Tall" is the mast\tup\n" a rope\tdown\nthe " sail "\tup\n',
        [("A mast", "up"), ('"Tall" is the mast', "up"), ('" a rope', "down"), ('the " sail "', "up")],
    ),
    "tabs and a quote over several rows": (
        "r.tsv",
        'text\tlabel\n"A mast\tup\nA rope\tdown\nA sail"\tup\n',
        [('"A mast', "up"), ("A rope", "down"), ('A sail"', "up")],
    ),
    "tabs and correct quotes": (
        "r.tsv",
        'text\tlabel\n"A ""tall""\tmast\nof oak"\tup\n',
        [('A "tall"\tmast\nof oak', "up")],
    ),
    "literal quotes between tabs in .csv": (
        "r.csv",
        'text\tlabel\n"Tall" is the mast\tup\n',
        [('"Tall" is the mast', "up")],
    ),
    "separator named by Excel": ("r.csv", "sep=;\r\ntext;label\r\nA mast, tall;up\r\n", [("A mast, tall", "up")]),
    "comments above the header": (
        "r.csv",
        "# From the yard\n# of May\ntext,label\nA mast,up\n",
        [("A mast", "up")],
    ),
    "header that begins with #": ("r.csv", "#,text\n1,A mast\n", [("1", "A mast")]),
    "row that begins with #": ("r.csv", "text,label\n# one,up\n", [("# one", "up")]),
    "empty cells at the end": ("r.csv", "text,label\nA mast,up,,\n", [("A mast", "up")]),
    "columns without names": ("r.csv", ",text,\n7,A mast,\n", [("7", "A mast")]),
    "rows separated by carriage returns": ("r.csv", "text,label\rA mast,up\r", [("A mast", "up")]),
}


@pytest.mark.parametrize(("name", "text", "expected"), STRAY.values(), ids=STRAY)
def test_a_quote_costs_its_own_row_only(
    name: str, text: str, expected: list[tuple[str, ...] | int], tmp_path: Path
) -> None:
    assert cells(read(tmp_path / name, text)) == expected


def test_a_line_that_is_no_utf8_costs_its_own_row_only(tmp_path: Path) -> None:
    rows = read(tmp_path / "r.csv", "text,label\nMât,up\n".encode() + b"M\xe2t,up\nRope,down\n" + "Étai,up\n".encode())
    assert cells(rows) == [("Mât", "up"), 3, ("Rope", "down"), ("Étai", "up")]


@pytest.mark.parametrize("broken", [0, 1, 1_000, 39_999])
def test_rows_around_a_broken_one_are_all_read_whatever_the_block(broken: int, tmp_path: Path) -> None:
    lines = [f'"Line {number} of the log, at the pier",{number}' for number in range(40_000)]
    lines[broken] = '"The mast is 5" thick",0'
    rows = read(tmp_path / "r.csv", "\n".join(["text,number", *lines]))
    assert [row.line for row in rows] == [*range(2, 40_002)]
    assert [row.line for row in rows if isinstance(row, BadRow)] == [broken + 2]


def test_a_cell_longer_than_a_block_is_one_cell(tmp_path: Path) -> None:
    text = "\n".join(f"Line {number}, of a long letter" for number in range(150_000))  # some blocks
    first, second = read(tmp_path / "r.csv", f'text,label\n"{text}",up\nA mast,down\n')
    assert cells([first, second]) == [(text, "up"), ("A mast", "down")]
    assert second.line == 150_002


def test_an_open_quote_in_a_large_file_is_found_without_reading_all_of_it(tmp_path: Path) -> None:
    lines = [f"Line {number},up" for number in range(200_000)]
    lines[10] = '"' + lines[10]
    rows = read(tmp_path / "r.csv", "\n".join(["text,label", *lines]))
    assert len(rows) == 200_000
    assert [row.line for row in rows if isinstance(row, BadRow)] == [12]


def test_a_broken_line_of_a_labelled_file_can_be_skipped(prepared: Preparer, tmp_path: Path) -> None:
    lines = [f'"Line {number} of the log",{("up", "down")[number % 2]}' for number in range(2_000)]
    lines[1_500] = '"The mast is 5" thick",up'
    (tmp_path / "r.csv").write_text("\n".join(["text,label", *lines]), "utf-8")
    result = prepared(tmp_path / "r.csv", on_error="skip", dedup=False).result
    assert (sum(result.splits.values()), result.dropped) == (1_999, {"broken_csv": 1})
    with pytest.raises(InputError, match=r"r\.csv:1502: not valid CSV"):
        prepared(tmp_path / "r.csv")


def test_what_is_above_the_header_is_counted(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text("# From the yard\ntext,label\nA mast,up\n", "utf-8")
    rows = [row for block in read_blocks(DataFile(path, "r.csv", "r.csv")) for row in rows_of(block)]
    assert [row for row in rows if isinstance(row, Unread)] == [Unread("line", "comment")]


@pytest.mark.parametrize(
    ("header", "says"),
    [("text,Text", "r.csv:1: the column Text, text occurs twice"), ("text,lab\udce9l", "r.csv:1: not valid UTF-8")],
)
def test_a_header_that_names_no_columns_is_refused(header: str, says: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        read(tmp_path / "r.csv", f"{header}\nÉtai,é\n".encode(errors="surrogateescape"))
    assert says in str(error.value)


def test_a_column_without_a_name_is_read_under_its_number(tmp_path: Path) -> None:
    (row,) = read(tmp_path / "r.csv", ",text\n7,A mast\n")
    assert isinstance(row, Row)
    assert row.values == {"unnamed 1": "7", "text": "A mast"}
