"""Rows in the forms of JSON that people have, and what is beside them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from finetune.prepare.formats.files import BadRow, DataFile, Row, Unread
from finetune.prepare.formats.readers import read_blocks, rows_of

Read = list[dict[str, Any] | int | Unread]

MAST: dict[str, Any] = {"text": "A mast", "label": "up"}
ROPE: dict[str, Any] = {"text": "A rope", "label": "down"}
BOTH: Read = [MAST, ROPE]
TURNS = [{"role": "user", "content": "What is a mast?"}, {"role": "assistant", "content": "A pole."}]
SPLIT: Read = [{"split": "train", **MAST}, {"split": "test", **ROPE}]


def read(path: Path, text: str | bytes) -> Read:
    """The rows, the lines of broken rows, and what is not read."""
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    found: Read = []
    for block in read_blocks(DataFile(path, path.name, path.name)):
        for row in rows_of(block):
            found.append(dict(row.values) if isinstance(row, Row) else row.line if isinstance(row, BadRow) else row)
    return found


def key(name: str, count: int = 1) -> Unread:
    return Unread("key", name, count)


OBJECTS: dict[str, tuple[Any, Read]] = {
    "row": (MAST, [MAST]),
    "row beside which is a list": (MAST | {"data": [ROPE]}, [MAST | {"data": [ROPE]}]),
    "conversation": ({"messages": TURNS}, [{"messages": TURNS}]),
    "conversation that is none": ({"messages": ["Hello"]}, [{"messages": ["Hello"]}]),
    "conversations in a column": ({"messages": [TURNS, TURNS]}, [{"messages": TURNS}, {"messages": TURNS}]),
    "prompt and completion as turns": (
        {"prompt": TURNS[:1], "completion": TURNS[1:]},
        [{"prompt": TURNS[:1], "completion": TURNS[1:]}],
    ),
    "translation": ({"translation": {"de": "Mast", "en": "mast"}}, [{"translation": {"de": "Mast", "en": "mast"}}]),
    "list in a wrapper": ({"data": BOTH}, BOTH),
    "list beside other keys": (
        {"version": "1", "by": {"name": "yard"}, "Items": BOTH, "tags": ["a", "b"]},
        [*BOTH, key("version"), key("by"), key("tags", 2)],
    ),
    "two lists": ({"data": BOTH, "more": [MAST, ROPE, MAST]}, [*BOTH, key("more", 3)]),
    "list by eval": ({"train": [MAST], "eval": [ROPE]}, [SPLIT[0], {"split": "eval", **ROPE}]),
    "list by split": ({"train": [MAST], "test": [ROPE], "by": "yard"}, [*SPLIT, key("by")]),
    "element that is no row": ({"rows": [MAST, "A rope"]}, [MAST, 2]),
    "columns": ({"text": ["A mast", "A rope"], "label": ["up", "down"]}, BOTH),
    "columns by index": ({"text": {"0": "A mast", "1": "A rope"}, "label": {"0": "up", "1": "down"}}, BOTH),
    "rows by index": ({"0": MAST, "1": ROPE}, BOTH),
    "rows by id": ({"m": MAST, "r": ROPE}, [{"key": "m", **MAST}, {"key": "r", **ROPE}]),
    "rows of cells": (
        {"columns": ["text", "label"], "index": [0, 1], "data": [["A mast", "up"], ["A rope", "down"]]},
        [*BOTH, key("index", 2)],
    ),
    "preview of a data set": (
        {
            "features": [{"name": "text"}],
            "rows": [
                {"row_idx": 0, "row": MAST, "truncated_cells": []},
                {"row_idx": 1, "row": ROPE, "truncated_cells": ["text"]},
            ],
        },
        [MAST, 2, key("features")],
    ),
    "columns of different lengths": (
        {"text": ["A mast"], "label": ["up", "down"]},
        [{"text": ["A mast"], "label": ["up", "down"]}],
    ),
}


@pytest.mark.parametrize(("value", "expected"), OBJECTS.values(), ids=OBJECTS)
@pytest.mark.parametrize(("suffix", "indent"), [("json", None), ("json", 2), ("jsonl", None), ("jsonl", 2)])
def test_rows_are_found_inside_an_object(
    suffix: str, indent: int | None, value: Any, expected: Read, tmp_path: Path
) -> None:
    assert read(tmp_path / f"rows.{suffix}", json.dumps(value, indent=indent)) == expected


FORMS: dict[str, str] = {
    "lines": "\n".join(map(json.dumps, BOTH)),
    "lines with byte order marks": "\ufeff" + "\n\ufeff".join(map(json.dumps, BOTH)),
    "list in one line": json.dumps(BOTH),
    "list over lines": json.dumps(BOTH, indent=1),
    "objects over lines": "\n".join(json.dumps(row, indent=1) for row in BOTH),
    "lists on end": json.dumps([MAST]) + "\n\n" + json.dumps([ROPE], indent=1),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
@pytest.mark.parametrize("suffix", ["json", "jsonl", "ndjson"])
def test_the_extension_does_not_decide_the_form(suffix: str, form: str, tmp_path: Path) -> None:
    assert read(tmp_path / f"rows.{suffix}", form) == BOTH


def test_constants_that_json_lacks_are_null(tmp_path: Path) -> None:
    rows = read(tmp_path / "r.jsonl", '{"a": NaN, "b": Infinity}\n{"a": -Infinity, "b": 1}\n')
    assert rows == [{"a": None, "b": None}, {"a": None, "b": 1}]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b'[{"a": 1},\n{"a": },\n{"a": 3},\n{"a": 4}]\n', [{"a": 1}, 2, Unread("line", "after broken JSON", 2)]),
        (b'[{"a": 1}]\nSaved in May.\n', [{"a": 1}, 2]),
        (b'[{"a": "M\xc3\xa2t"},\n{"a": "M\xe2t"},\n{"a": "\xc3\x89tai"}]', [{"a": "Mât"}, 2, {"a": "Étai"}]),
    ],
)
def test_what_follows_a_broken_element_is_counted(text: bytes, expected: Read, tmp_path: Path) -> None:
    assert read(tmp_path / "rows.json", text) == expected
