"""Rows from a file of marked sentences in the form of microsoft/presidio-research: its development half, and no other."""

from __future__ import annotations

import json
from pathlib import Path

from generate import Row

KINDS = {"PERSON": "NAME", "LOCATION": "LOCATION", "ADDRESS": "ADDRESS", "ORGANIZATION": "ORGANISATION"}
GAP = " \n\t,."


def read_marked(path: Path) -> tuple[list[Row], list[Row]]:
    """The rows of the even templates, those to learn from and those to validate with: each fifth of these templates.

    What stands side by side and has a street in it is one address.
    """
    rows = [row for row in json.loads(path.read_text("utf-8")) if row["template_id"] % 2 == 0]
    sides = [[_read(row) for row in rows if (row["template_id"] % 10 == 0) is side] for side in (False, True)]
    return sides[0], sides[1]


def _read(row: dict[str, object]) -> Row:
    text, marks = str(row["full_text"]), row["spans"]
    assert isinstance(marks, list)
    spans: list[tuple[int, int, str]] = []
    for mark in sorted(marks, key=lambda each: each["start_position"]):
        kind = KINDS.get(mark["entity_type"])
        if kind is None:
            continue
        start, end = mark["start_position"], mark["end_position"]
        if (
            spans
            and kind in {"ADDRESS", "LOCATION"}
            and spans[-1][2] == "ADDRESS"
            and not text[spans[-1][1] : start].strip(GAP)
        ):
            spans[-1] = (spans[-1][0], end, "ADDRESS")
        elif spans and kind == "NAME" and text[spans[-1][1] - 1 : start] == ". ":  # a title
            spans[-1] = (spans[-1][0], end, "NAME")
        else:
            spans.append((start, end, kind))
    return Row(text, tuple(spans))
