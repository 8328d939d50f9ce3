"""Turns a block of a file into examples: a row gives one or several, is dropped with a reason, or stops the run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

from finetune.errors import Unusable
from finetune.prepare.clean.boilerplate import drop_repeated
from finetune.prepare.clean.language import is_foreign
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.quality import filter_example
from finetune.prepare.clean.scrub import scrub
from finetune.prepare.clean.special_tokens import escape_control_tokens, looks_rendered
from finetune.prepare.clean.text import Changes, clean_text
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.dedup.keys import context_group
from finetune.prepare.documents.chunk import approximate_tokens, chunk
from finetune.prepare.documents.document_file import load_document
from finetune.prepare.documents.instruct import instruct
from finetune.prepare.drops import Drops, file_id, row_id
from finetune.prepare.formats.files import BadRow, Lines, Row, Rows, Unread
from finetune.prepare.formats.readers import rows_of
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.change import Change, change_texts, change_turns, follow_context
from finetune.prepare.rows.cleaning import clean_to
from finetune.prepare.rows.columns import map_columns, optional_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.part import Part, Reading, read_row
from finetune.prepare.splits.timestamps import parse_time_rule, parse_timestamp
from finetune.records import Document, Drop, Example, Message, Section, Split


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a part, or the file of an extracted document; `number` counts across all parts."""

    number: int
    part: int
    content: Lines | Rows | Path


@dataclass(frozen=True)
class Job:
    """What a worker process needs: the request, and what is known before the rows are read."""

    request: PrepareRequest
    parts: tuple[Part, ...]
    folder: Path  # of the shards
    languages: frozenset[str]  # allowed languages; empty: any
    evals: EvalIndex | None = None
    repeated: Mapping[str, frozenset[int]] = field(default_factory=dict)  # source -> lines that its documents share

    @cached_property
    def time_column(self) -> str | None:
        """The column of the timestamps, if rows are split by time."""
        rule = parse_time_rule(self.request.split_by_time)
        return rule.column if rule else None


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known about a row before it becomes an example: its id, its group, and the split named by its source.

    `official` rows belong to a published test set and are all kept; `timestamp` is in seconds since 1970, and set if rows
    are split by time.
    """

    name: str
    group: str | None
    split: Split | None
    official: bool = False
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Candidate:
    """An example, its origin, and the texts that later stages compare.

    `compared` is the example in clean text, however little its own was cleaned. `question` and `answer` are its texts
    before scrubbing, without instructions, as in eval sets; `context` is the part of the question that other questions may
    share.
    """

    example: Example
    compared: Example
    origin: Origin
    question: str = ""
    answer: str = ""
    context: str = ""


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
                outcome = _make_candidate(job, part, draft, origin, drops)
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


# --- every example ----------------------------------------------------------------------------------------------------


def _check_rendered(draft: Draft) -> None:
    if any(looks_rendered(turn.content) for turn in (*draft.messages, *draft.rejected)):
        raise Unusable(
            "rendered_template",
            "the text is a conversation that already contains a model's control tokens, which training would add again. "
            "Provide the turns as messages",
        )


def _make_candidate(job: Job, part: Part, draft: Draft, origin: Origin, drops: Drops) -> Candidate | Drop:
    """Make an example from a draft, or a `Drop` if a filter rejects it."""
    if draft.label == "undesirable" and draft.task == "preference" and "rejected" in part.ignored:
        return Drop(origin.name, "read", "rejected_answer")
    example = Example(
        id=origin.name,
        messages=draft.messages,
        task=draft.task,
        label=draft.label,
        choices=draft.choices,
        labels=draft.labels,
        group=origin.group or (context_group(draft.context) if draft.context else None),
        source=part.source.id,
        license=part.source.license,
        tools=draft.tools,
        rejected=draft.rejected,
    )
    example = _escape_example(example, drops)
    compared = example if part.is_clean else _clean_example(example)
    if compared.messages == compared.rejected:
        return Drop(origin.name, "read", "equal_answers")
    reason = None if origin.official else _filter(job, compared)
    if reason is not None:
        return Drop(origin.name, *reason)
    question = answer = ""
    if job.evals is not None and not origin.official:
        prompt = compared.prompt
        question = strip_markup("\n".join(turn.content for turn in prompt if turn.role != "system"))
        answer = strip_markup("\n".join(turn.text for turn in compared.turns[len(prompt) :]))
    same = compared is example
    if job.request.scrub:
        example = _scrub_example(example, drops.scrubbed)
        compared = example if same else _scrub_example(compared, Counter())
    if draft.context or draft.second:
        example = _with_context(job, draft, example)
        compared = example if same else _with_context(job, draft, compared, clean_text)
    return Candidate(example, compared, origin, question, answer, (draft.context and compared.context) or "")


def _with_context(job: Job, draft: Draft, example: Example, change: Change = str) -> Example:
    """The example with the context of its question, or its second text, changed as the question was."""

    def change_all(text: str) -> str:
        text = change(escape_control_tokens(text))
        return scrub(text, Counter()) if job.request.scrub else text

    question, changed = (_last_question(turns) for turns in (draft.messages, example.messages))
    return replace(example, context=follow_context(draft.context or draft.second, question, changed, change_all))


def _last_question(turns: Sequence[Message]) -> str:
    return next(turn.content for turn in reversed(turns) if turn.role == "user")


def _clean_example(example: Example) -> Example:
    """The example with the clean text that filters and keys compare."""
    return change_turns(example, clean_text)


def _filter(job: Job, example: Example) -> tuple[str, str] | None:
    """The step and the reason for which an example is dropped, or None."""
    reason = filter_example(example) if job.request.quality else None
    if reason is not None:
        return "quality", reason
    if job.languages and example.task != "translation":
        roles = {"user"} if example.task == "code" else {"user", "assistant"}
        text = "\n".join(turn.content for turn in example.turns if turn.role in roles)
        if is_foreign(text, job.languages):
            return "language", "foreign_language"
    return None


def _escape_example(example: Example, drops: Drops) -> Example:
    escaped = change_texts(example, escape_control_tokens)
    if escaped is not example:
        drops.cleaned["control tokens broken up"] += 1
    return escaped


def _scrub_example(example: Example, counts: Counter[str]) -> Example:
    """The example without identifiers; a label is never changed."""
    return change_texts(example, partial(scrub, counts=counts), kept=1 if example.task == "classification" else 0)
