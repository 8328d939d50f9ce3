"""Renders what was found in files: counts by kind and, only if asked for, each span with its reason."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from finetune.cli.console import facts, paragraph, table

if TYPE_CHECKING:
    from finetune.prepare.scrub_check import CheckResult
    from finetune.prepare.scrub_files import Explanation, ScrubResult

FEW = 30  # spans, below which an interval is too wide to say much
AIM = 0.95  # the recall that the note takes as its example
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
    if "NAME" not in result.kinds:
        note = f"Names of people and places were not searched for (--tagger own or MODEL). {note}"
    listed = table(["file", "rows", "with personal data", "dropped", "written to"], rows)
    return f"{listed}\n\n{summary}\n\n{paragraph(note)}"


def render_explanations(explanations: Sequence[Explanation]) -> str:
    """A line per span: where, what, and why."""
    lines = [
        f"{each.where}: {each.entity} {each.text!r} by {each.recogniser} ({each.score:g}): {each.reason}"
        for each in explanations
    ]
    return "".join(f"{line}\n" for line in [*lines, ""] if lines)


def render_check(result: CheckResult) -> str:
    """Recall and precision by kind with intervals, and what so many rows allow to say."""
    from finetune.scrub.figures import spans_needed  # here: `slmtune --help` imports this module

    rows = [
        [
            kind,
            each.spans,
            _share(each.recall, each.recall_interval),
            each.marks,
            _share(each.precision, each.precision_interval),
        ]
        for kind, each in result.figures.items()
    ]
    few = [kind for kind, each in result.figures.items() if each.spans < FEW and kind != "all"]
    notes = [
        f"{result.checked:,} of {result.rows:,} rows were checked; in {result.missed:,} of the {result.clean:,} in which "
        "nothing was found, there was something.",
        "Recall is the share of personal data that is covered whole, by whatever kind; rows in which something was found are "
        "drawn more often, and the recall allows for that. Intervals are at 95 %.",
        f"To show a recall of {AIM:.2f}, {spans_needed(AIM)} spans of a kind must be found without a miss. "
        + (f"Fewer than {FEW} were seen of {', '.join(few)}: of these, little can be said." if few else "")
        + " Kinds that are not listed did not occur, and nothing is known about them.",
    ]
    listed = table(["kind", "spans", "recall", "marks", "precision"], rows)
    return "\n\n".join([listed, *map(paragraph, notes)])


def _share(share: float | None, interval: tuple[float, float] | None) -> str:
    return "-" if share is None or interval is None else f"{share:.2f} ({interval[0]:.2f} to {interval[1]:.2f})"
