"""The dialogue of `slmtune scrub --check`: a person corrects the marks of rows, in the terminal or in a file."""

from __future__ import annotations

from pathlib import Path

import click

from finetune.cli.console import console
from finetune.cli.render.scrub import render_check
from finetune.errors import InputError
from finetune.prepare.scrub_check import (
    Draw,
    DrawnRow,
    correct,
    draw_rows,
    mark_text,
    measure_check,
    read_check,
    write_check,
)
from finetune.prepare.scrub_files import ScrubRequest
from finetune.scrub.figures import Mark

HELP = "Enter: the marks are right. 2: the second is wrong. +NAME Jane Doe: this was missed. s: skip the row. q: stop here."


def check_rows(request: ScrubRequest, count: int, file: Path | None) -> None:
    """Draw rows, take the corrections, and print the figures; a file that is not there yet is written instead."""
    draw = draw_rows(request, count)
    if file is not None and not file.exists():
        write_check(file, draw)
        written = {"check_file": file, "rows": len(draw.rows)}
        console.result(written, lambda: f"{file} has {len(draw.rows)} rows. Correct the marks, and run this again.")
        return
    if file is None and console.as_json:
        raise click.UsageError("--check asks in the terminal. With --json, give a --check-file.")
    marks = _ask(draw) if file is None else read_check(file, draw)
    result = measure_check(draw, marks)
    console.result(result, lambda: render_check(result))


def _ask(draw: Draw) -> dict[str, tuple[Mark, ...]]:
    """The corrected marks of the rows up to the one at which the person stops."""
    marks = {}
    console.stream([HELP])
    for number, row in enumerate(draw.rows, 1):
        console.stream([f"\n[{number}/{len(draw.rows)}] {row.where}\n{mark_text(row.text, row.found)}"])
        right = _ask_row(row)
        if right is None:
            break
        if right is not SKIPPED:
            marks[row.where] = right
    return marks


SKIPPED: tuple[Mark, ...] = ((-1, -1, ""),)


def _ask_row(row: DrawnRow) -> tuple[Mark, ...] | None:
    """The corrected marks of a row; None: stop."""
    marks: tuple[Mark, ...] = row.found
    while answer := console.ask():
        if answer in {"q", "s"}:
            return None if answer == "q" else SKIPPED
        try:
            marks = correct(row, marks, answer)
        except InputError as error:
            console.stream([str(error)])
        else:
            console.stream([mark_text(row.text, marks)])
    return None if answer is None else marks
