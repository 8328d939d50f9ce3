"""The rows inside one JSON object: in a list under a known key, by split, by column as data frames write them, or in SQuAD."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from finetune.prepare.formats.files import BadRow, Row, Unread
from finetune.records import SPLIT_WORDS

Object = Mapping[str, Any]

WRAPPERS = ("data", "rows", "items", "examples", "records", "instances", "samples", "entries", "results", "dataset")
TURNS = frozenset({"messages", "conversations"})  # a list of lists in a column
ROW = frozenset(
    {"text", "question", "prompt", "instruction", "messages", "conversations"}
)  # an object with one is a row


def rows_inside(value: Object, line: int) -> Iterator[Row | BadRow | Unread]:
    """The rows of an object, numbered from 1, and the keys that are not read; one that wraps none is a row at `line`."""
    unread: list[Unread] = []
    for number, row in enumerate(_find_rows(value, unread), 1):
        if not isinstance(row, Mapping):
            yield BadRow(number, "no_object", "the row is not an object with named fields. Write one object per row")
        elif row.get("truncated_cells"):
            yield BadRow(number, "truncated", "a preview has cut off cells of the row. Download the data set itself")
        else:
            yield Row(line if row is value else number, row)
    yield from unread


def _find_rows(value: Object, unread: list[Unread]) -> Iterator[Any]:
    wraps = ROW.isdisjoint(name.lower() for name in value)
    names = [name for name in value if wraps and name.lower() in WRAPPERS and _has_rows(value[name])]
    splits = [name for name in value if wraps and name.lower() in SPLIT_WORDS and _has_rows(value[name])]
    if names:
        unread += [Unread("key", name, _size(other)) for name, other in value.items() if name != names[0]]
        yield from _rows_of_list(value, names[0], unread)
    elif splits:
        unread += [Unread("key", name, _size(other)) for name, other in value.items() if name not in splits]
        for name in splits:
            for row in value[name]:
                yield {"split": name.lower(), **row} if isinstance(row, Mapping) else row
    elif _are_columns(value):
        for cells in zip(*value.values(), strict=True):
            yield dict(zip(value, cells, strict=True))
    elif _are_objects(list(value.values())):
        yield from _rows_of_objects(value)
    elif isinstance(value.get("paragraphs"), list):
        yield from squad_rows(value)
    else:
        yield value


def _has_rows(value: object) -> bool:
    return isinstance(value, list) and bool(value) and isinstance(value[0], list | Mapping)


def _size(value: object) -> int:
    return max(len(value), 1) if isinstance(value, list) else 1


def _rows_of_list(value: Object, name: str, unread: list[Unread]) -> Iterator[Any]:
    """The rows of a list: objects, lists of cells beside the names of the columns, articles, or rows of a preview."""
    columns = value.get("columns")
    for row in value[name]:
        if isinstance(row, list) and isinstance(columns, list) and len(columns) == len(row):
            unread[:] = [each for each in unread if each.name != "columns"]
            yield dict(zip(map(str, columns), row, strict=True))
        elif isinstance(row, Mapping) and isinstance(row.get("paragraphs"), list):
            yield from squad_rows(row)
        elif isinstance(row, Mapping) and isinstance(row.get("row"), Mapping) and "row_idx" in row:
            yield {**row["row"], **({"truncated_cells": cells} if (cells := row.get("truncated_cells")) else {})}
        else:
            yield row


def _are_columns(value: Object) -> bool:
    """Whether these are the columns of a table: lists of one length, and not those of a conversation."""
    columns = list(value.values())
    if not columns or not all(isinstance(column, list) and column for column in columns):
        return False
    turns = [column for name, column in value.items() if name.lower() in TURNS]
    if not all(isinstance(column[0], list) for column in turns) or all(isinstance(c[0], Mapping) for c in columns):
        return False
    return len({len(column) for column in columns}) == 1


def _are_objects(values: Sequence[Any]) -> bool:
    """Whether these are objects with the same keys: the columns or the rows of a data frame, or rows by their ids."""
    if not values or not all(isinstance(each, Mapping) and each.keys() == values[0].keys() for each in values):
        return False
    return len(values) > 1 or (bool(values[0]) and all(name.isdecimal() for name in values[0]))


def _rows_of_objects(value: Object) -> Iterator[dict[str, Any]]:
    """Rows out of {column: {index: cell}} or {index: {column: cell}}; an index that is not a plain number is kept."""
    inner = list(next(iter(value.values())))
    if all(name.isdecimal() for name in inner):
        for index in inner:
            yield {name: cells[index] for name, cells in value.items()}
    else:
        for name, row in value.items():
            yield dict(row) if name.isdecimal() else {"key": name, **row}


def squad_rows(article: Object) -> Iterator[dict[str, Any]]:
    """One row per question (Rajpurkar et al., SQuAD, 2016)."""
    for paragraph in article["paragraphs"]:
        if not isinstance(paragraph, Mapping):
            continue
        for entry in paragraph.get("qas") or ():
            if isinstance(entry, Mapping):
                yield {"title": article.get("title"), "context": paragraph.get("context"), **entry}
