"""Turns a block of a file into examples: a row gives one or several, is dropped with a reason, or stops the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from finetune.errors import Unusable
from finetune.prepare.clean.boilerplate import drop_repeated
from finetune.prepare.clean.special_tokens import looks_rendered
from finetune.prepare.clean.text import Changes, clean_text
from finetune.prepare.documents.chunk import approximate_tokens, chunk
from finetune.prepare.documents.document_file import load_document
from finetune.prepare.documents.instruct import instruct
from finetune.prepare.drops import Drops, file_id, row_id
from finetune.prepare.formats.files import BadRow, Row, Unread
from finetune.prepare.formats.readers import rows_of
from finetune.prepare.rows.candidate import Candidate, Origin, make_candidate
from finetune.prepare.rows.cleaning import clean_to
from finetune.prepare.rows.columns import map_columns, optional_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.part import Part, Reading, read_row
from finetune.prepare.splits.timestamps import parse_timestamp
from finetune.records import Document, Drop, Message, Section, Split


def make_rows(job: Job, block: Block, drops: Drops) -> list[Candidate]:
    """Build, clean and filter the examples of a block.

    Raises:
        RecordError: a row cannot be used, and `--on-error` is `fail`; names file and line.
    """
    part, content = job.parts[block.part], block.content
    candidates: list[Candidate] = []
    for record in [content] if isinstance(content, Path) else rows_of(content):
        if isinstance(record, Unread):
            drops.note_unused(part.source, record.kind, record.name, record.count)
            continue
        drops.read += 1
        try:
            for draft, origin in _drafts(job, part, record, drops):
                outcome = make_candidate(job, part, draft, origin, drops)
                if isinstance(outcome, Drop):
                    drops.items.append(outcome)
                else:
                    candidates.append(outcome)
        except Unusable as error:
            drops.refuse(part.source, part.file, error, None if isinstance(record, Path) else record.line)
    return candidates


def _drafts(job: Job, part: Part, record: Row | BadRow | Path, drops: Drops) -> Iterator[tuple[Draft, Origin]]:
    if isinstance(record, Path):
        return _document_drafts(job, part, record, drops)
    return _row_drafts(job, part, record, drops)


# --- rows -------------------------------------------------------------------------------------------------------------


def _row_drafts(job: Job, part: Part, row: Row | BadRow, drops: Drops) -> Iterator[tuple[Draft, Origin]]:
    """The draft of a row, or the drafts of its chunks if it is a long text.

    Raises:
        Unusable: the row or a chunk of it cannot be used.
    """
    if isinstance(row, BadRow):
        raise Unusable(row.reason, row.problem)
    reading = read_row(part, row)
    draft = reading.draft
    drops.cleaned.update(reading.changes)
    for kind, unread in reading.unread:
        drops.note_unused(part.source, kind, unread)
    number = optional_text(reading.columns, "id") if part.test_ids else ""
    official = number in part.test_ids
    drops.test_ids |= {number} & part.test_ids
    split: Split | None = "test" if official else part.file.split or _named_split(job, reading)
    official |= part.source.earlier or (split == "test" and part.source.recipe is not None)
    group = optional_text(reading.columns, "group") if "group" in part.mapping else ""
    name = row_id(part.source, part.file, row.line)
    origin = Origin(name, group or None, split, official, _timestamp(job, row))
    text = draft.messages[-1].content
    if draft.task != "text" or approximate_tokens(text) <= job.request.chunk_tokens:
        _check_rendered(draft)
        yield draft, origin
        return
    for position, piece in enumerate(_pieces(job, part, Document(None, (Section(None, 0, text),)), Counter()), 1):
        _check_rendered(piece)
        yield piece, replace(origin, name=row_id(part.source, part.file, row.line, position), group=group or name)


def _named_split(job: Job, reading: Reading) -> Split | None:
    """The split that a row names; `--split-ratio` divides the rows of train anew, as it does files."""
    return None if reading.split == "train" and job.request.split_ratio is not None else reading.split


def _timestamp(job: Job, row: Row) -> float | None:
    if job.time_column is None:
        return None
    timestamp = parse_timestamp(map_columns(row.values, {"time": job.time_column})["time"])
    if timestamp is None:
        raise Unusable(
            "no_time",
            f"the column {job.time_column!r} does not contain a date. Write dates like 2024-12-31, years, or seconds or "
            "milliseconds since 1970",
        )
    return timestamp


# --- documents --------------------------------------------------------------------------------------------------------


def _document_drafts(job: Job, part: Part, path: Path, drops: Drops) -> Iterator[tuple[Draft, Origin]]:
    """The chunks of a document, or its questions and answers, as one group; a bad one does not affect the others."""
    if job.time_column is not None and part.file.split is None:
        raise Unusable(
            "no_time",
            f"a document has no column {job.time_column!r}. Leave out --split-by-time, or give rows with such a column",
        )
    document = _drop_repeated(job, part, load_document(path), drops)
    for element, count in document.unused.items():
        drops.note_unused(part.source, "element", element, count)
    name = file_id(part.source, part.file)
    pairs = list(_pairs(job, part, document, drops.cleaned)) if job.request.instruct else []
    for number, draft in enumerate(pairs or _pieces(job, part, document, drops.cleaned), 1):
        try:
            _check_rendered(draft)
        except Unusable as error:
            drops.refuse(part.source, part.file, error)
        else:
            yield draft, Origin(f"{name}#{number}", document.group or name, part.file.split)


def _drop_repeated(job: Job, part: Part, document: Document, drops: Drops) -> Document:
    if job.request.clean != "full":
        return document
    kept = drop_repeated(document, job.repeated.get(part.source.id, frozenset()))
    lines, left = (sum(map(bool, map(str.strip, _lines(each)))) for each in (document, kept))
    if left < lines:
        drops.note_unused(part.source, "line", "repeated by most documents", lines - left)
    return kept


def _lines(document: Document) -> Iterator[str]:
    return (line for section in document.sections for line in section.text.split("\n"))


def _pairs(job: Job, part: Part, document: Document, cleaned: Counter[str]) -> Iterator[Draft]:
    for question, answer in instruct(document):
        changes: Changes = set()
        asked, told = (_clean_piece(job, part, text, changes) for text in (question, answer))
        cleaned.update(changes)
        yield Draft((Message("user", asked), Message("assistant", told)), "qa")


def _pieces(job: Job, part: Part, document: Document, cleaned: Counter[str]) -> Iterator[Draft]:
    for piece in chunk(document, job.request.chunk_tokens, approximate_tokens):
        changes: Changes = set()
        text = _clean_piece(job, part, piece, changes)
        cleaned.update(changes)
        if text and not text.isspace():
            yield Draft((Message("assistant", text),), "text")


def _clean_piece(job: Job, part: Part, text: str, changes: Changes) -> str:
    if job.request.clean == "full":
        return clean_text(text, changes, entities=part.has_entities)
    return clean_to(job.request.clean, text, changes)


def _check_rendered(draft: Draft) -> None:
    if any(looks_rendered(turn.content) for turn in (*draft.messages, *draft.rejected)):
        raise Unusable(
            "rendered_template",
            "the text is a conversation that already contains a model's control tokens, which training would add again. "
            "Provide the turns as messages",
        )
