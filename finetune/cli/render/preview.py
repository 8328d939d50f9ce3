"""Renders what `prepare` would make of its sources, each fact with the option that changes it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from finetune.cli.console import facts
from finetune.cli.render.corpus import name_line
from finetune.cli.render.mask import describe_mark, describe_row, mark, mark_row, paint
from finetune.corpus.mask import MaskedText
from finetune.records import count_alike, name_tools

if TYPE_CHECKING:
    from finetune.prepare.preview import FilesPreview, Preview, RowPreview, SourcePreview
    from finetune.records import Unused

NAMED = 8  # files, labels and unused things that are named
KEEPING = {
    "quality": "--no-quality",
    "language": "--language any",
    "read": "--on-error skip",
    "scrub": "--scrub-policy",
}  # step -> option


def render_preview(preview: Preview) -> str:
    """Each source, the shape of its files, and their first rows with what carries loss marked."""
    lines = [
        facts({"model": preview.model or "none", "licence": preview.license, "carries loss": describe_mark()}),
        *preview.notes,
    ]
    for source in preview.sources:
        lines += _source(source)
    lines += ["", "Nothing was written, and no rows were compared with others or with eval sets."]
    if any(group.has_more for source in preview.sources for group in source.groups):
        lines.append("Rows further down were not looked at: prepare may still stop at one, or drop it.")
    if preview.stops:
        lines.append("prepare stops at the first of these problems; --on-error skip drops and counts them.")
    return paint("\n".join(lines))


def _source(source: SourcePreview) -> Iterator[str]:
    files = _number(source.files, "file")
    if source.looked_at < source.files:
        files += f", the first {source.looked_at:,} looked at"
    yield from ("", f"{name_line(source.id)}  ({files}, licence {name_line(source.license)})")
    if source.unused:
        yield f"  not used  {_listed([_unused(each, 0) for each in source.unused])}"
    for group in source.groups:
        yield ""
        yield from _group(group, "recipe.yaml" if source.has_recipe else "")


def _group(group: FilesPreview, recipe: str) -> Iterator[str]:
    passed = {
        "columns": (_listed(group.columns), recipe or "--map NAME=COLUMN"),
        "encoding": (group.encoding, "--encoding NAME"),
        "labels": (_listed(group.labels), recipe or "--map label=COLUMN"),
        "splits": (_counts(group.splits), "named by the source"),
        "dropped": (
            _counts({drop.reason: drop.rows for drop in group.dropped}),
            ", ".join(option for step, option in KEEPING.items() if any(drop.step == step for drop in group.dropped)),
        ),
        "not used": (_listed([_unused(each, group.read) for each in group.unused]), recipe or "--map, --ignore"),
        "cleaned": (_counts(group.cleaned), "--clean light"),
        "scrubbed": (_counts(group.scrubbed), "--no-scrub"),
    }
    read = _number(group.read, "document" if group.shape == "document" else "row")
    if group.has_more:
        read = f"the first {read}" if len(group.files) == 1 else f"{read}, the first of each file"
    shown = {
        "files": _listed(group.files),
        "read as": group.shape,
        **({"looked at": f"{read}, kept {_number(group.kept, 'row')}"} if group.read else {}),
        **{name: f"{name_line(value, 1000)}  ({option})" for name, (value, option) in passed.items() if value},
    }
    yield from (f"  {line}" for line in facts(shown).split("\n"))
    for problem in group.problems:
        yield f"  problem: {name_line(problem, 1000)}"
    for row in group.rows:
        yield from _row(row)


def _row(row: RowPreview) -> Iterator[str]:
    size = "" if row.masked is None else f"  ({describe_row(row.masked)})"
    yield from ("", f"  {name_line(row.id, 200)}{size}")
    if row.masked is not None:
        yield from mark_row(row.masked)
        return
    if row.tools:
        yield from mark([MaskedText(f"tools: {', '.join(name_tools(row.tools))}", False)])
    turns = [(turn.role, turn) for turn in row.messages]
    rejected = [("rejected", turn) for turn in row.rejected[count_alike(row.messages, row.rejected) :]]
    for name, turn in [*turns, *rejected]:
        yield from mark([MaskedText(f"{name}: ", False), MaskedText(turn.text, turn.role == "assistant")])


def _unused(unused: Unused, read: int) -> str:
    of = f" of {read:,} rows" if unused.kind in {"column", "key of a turn"} else ""
    return f"{unused.kind} {unused.name} ({unused.count:,}{of})"


def _listed(names: Sequence[str]) -> str:
    more = len(names) - NAMED
    return ", ".join([*names[:NAMED], *([f"{more:,} more"] if more > 0 else [])])


def _number(number: int, name: str) -> str:
    return f"{number:,} {name}" + ("" if number == 1 else "s")


def _counts(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {number:,}" for name, number in counts.items())
