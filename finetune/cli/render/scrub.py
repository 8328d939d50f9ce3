"""Renders what was found in files: counts by kind and, only if asked for, each span with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.cli.console import facts, table

if TYPE_CHECKING:
    from finetune.prepare.scrub_files import Explanation, ScrubResult

BECOMES = {
    "tag": "replaced by tags",
    "mask": "masked",
    "surrogate": "replaced by surrogates",
    "drop": "dropped with the row",
}


def render_scrub(result: ScrubResult) -> str:
    """The files and the counts by kind; never a value."""
    rows = [[each.file, each.rows, each.changed, each.dropped, each.out or "-"] for each in result.files]
    is_written = any(each.out for each in result.files)
    counts = ", ".join(f"{name} {count:,}" for name, count in result.found.items())
    summary = facts(
        {
            "found": counts or "nothing",
            "searched for": ", ".join(result.kinds),
            "which is": BECOMES[result.policy]
            if is_written
            else "only counted: nothing was written (--output-dir DIR)",
        }
    )
    note = "What is not recognised stays: measure it on your rows with slmtune scrub --check 200 FILE."
    listed = table(["file", "rows", "with personal data", "dropped", "written to"], rows)
    return f"{listed}\n\n{summary}\n\n{note}"


def render_explanations(explanations: Sequence[Explanation]) -> str:
    """A line per span: where, what, and why."""
    lines = [
        f"{each.where}: {each.entity} {each.text!r} by {each.recogniser} ({each.score:g}): {each.reason}"
        for each in explanations
    ]
    return "".join(f"{line}\n" for line in [*lines, ""] if lines)
