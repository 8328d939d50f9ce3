"""From a block of a file to examples: every row becomes one or several, is left out with a reason, or is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from finetune.errors import InputError, RecordError, Unusable
from finetune.prepare.clean.boilerplate import drop_repeated
from finetune.prepare.clean.language import is_foreign
from finetune.prepare.clean.quality import filter_example
from finetune.prepare.clean.scrub import scrub
from finetune.prepare.clean.special_tokens import escape_control_tokens, looks_rendered
from finetune.prepare.clean.text import clean_text
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.dedup.keys import context_group
from finetune.prepare.documents.chunk import approximate_tokens, chunk
from finetune.prepare.documents.document_file import load_document
from finetune.prepare.documents.instruct import instruct
from finetune.prepare.drops import Ledger, Policy, file_id, row_id
from finetune.prepare.formats.files import BadRow, Lines, Row, Rows
from finetune.prepare.formats.readers import rows_of
from finetune.prepare.rows.columns import Values, list_names, map_columns, optional_text
from finetune.prepare.rows.shapes import Draft
from finetune.prepare.rows.survey import Part, kind_of
from finetune.prepare.splits.timestamps import parse_timestamp
from finetune.records import Document, Drop, Example, Message, Section, Split


@dataclass(frozen=True, slots=True)
class Block:
    """Some rows of a part, or the file that an extracted document waits in; `number` counts over all parts."""

    number: int
    part: int
    content: Lines | Rows | Path


@dataclass(frozen=True)
class Job:
    """What a worker process has to know of the request."""

    parts: tuple[Part, ...]
    folder: Path  # where the shards go
    on_error: Policy
    seed: int
    scrub: bool
    quality: bool
    languages: frozenset[str]
    instruct: bool
    chunk_tokens: int
    sign: bool  # make the signatures that near-duplicates are found by
    time_column: str | None
    evals: EvalIndex | None = None
    repeated: Mapping[str, frozenset[int]] = field(default_factory=dict)  # source -> lines that its documents share


@dataclass(frozen=True, slots=True)
class Origin:
    """What is known of a row before it is an example: its name, its group, the split that its source names.

    `official` rows are of a published test set and must all stay; `timestamp` is in seconds since 1970, and given where
    rows are split by time.
    """

    name: str
    group: str | None
    split: Split | None
    official: bool = False
    timestamp: float | None = None


@dataclass(frozen=True, slots=True)
class Placed:
    """An example, where it comes from, and what later stages compare.

    `asked` and `answered` are its texts before scrubbing, as eval sets have them, without instructions; `context` is the
    part of the question that other questions may share.
    """

    example: Example
    origin: Origin
    asked: str = ""
    answered: str = ""
    context: str = ""


@dataclass
class Made:
    """What became of a block."""

    rows: list[Placed] = field(default_factory=list)
    found_ids: set[str] = field(default_factory=set)


def make_rows(job: Job, block: Block, ledger: Ledger) -> Made:
    """Build, clean and filter the examples of a block.

    Raises:
        RecordError: a row cannot be used and is not to be skipped; names file and line.
    """
    part = job.parts[block.part]
    made = Made()
    if isinstance(block.content, Path):
        _from_document(job, part, block.content, made, ledger)
        return made
    for row in rows_of(block.content):
        ledger.read[part.source.id] += 1
        if isinstance(row, BadRow):
            ledger.refuse(part.source, part.file, row.line, row.reason, row.problem)
            continue
        try:
            _from_row(job, part, row, made, ledger)
        except Unusable as error:
            ledger.refuse(part.source, part.file, row.line, error.reason, str(error))
    return made


def _from_row(job: Job, part: Part, row: Row, made: Made, ledger: Ledger) -> None:
    assert part.shape is not None
    columns = map_columns(row.values, part.mapping)
    number = optional_text(columns, "id") if part.test_ids else ""
    missing = [name for name in part.shape.needs if name not in columns]
    if missing:
        raise Unusable("missing_column", f"there is no column {missing[0]!r}. Columns found: {list_names(columns)}")
    _check_kinds(part, columns)
    draft = part.shape.build(columns)
    official = number in part.test_ids
    made.found_ids |= {number} & part.test_ids
    split: Split | None = "test" if official else part.file.split
    official |= part.source.earlier or (split == "test" and part.source.recipe is not None)
    group = optional_text(columns, "group") if "group" in part.mapping else ""
    name = row_id(part.source, part.file, row.line)
    origin = Origin(name, group or None, split, official, _timestamp(job, row))
    text = draft.messages[-1].content
    if draft.task != "text" or approximate_tokens(text) <= job.chunk_tokens:
        _take(job, part, draft, origin, made, ledger)
        return
    for place, piece in enumerate(_pieces(Document(None, (Section(None, 0, text),)), job), 1):
        inner = row_id(part.source, part.file, row.line, place)
        _take(job, part, piece, replace(origin, name=inner, group=group or name), made, ledger)


def _check_kinds(part: Part, columns: Values) -> None:
    for name, usual in part.kinds.items():
        kind = kind_of(columns.get(name))
        if kind is not None and kind != usual:
            raise Unusable("type_conflict", f"the column {name!r} is a {kind} here and a {usual} in other rows")


def _timestamp(job: Job, row: Row) -> float | None:
    if job.time_column is None:
        return None
    timestamp = parse_timestamp(optional_text(map_columns(row.values, {"time": job.time_column}), "time"))
    if timestamp is None:
        raise Unusable("no_time", f"the column {job.time_column!r} holds no date. Write dates as 2024-12-31")
    return timestamp


# --- documents --------------------------------------------------------------------------------------------------------


def _from_document(job: Job, part: Part, path: Path, made: Made, ledger: Ledger) -> None:
    """The pieces of a document, or its questions and answers; they are one group."""
    ledger.read[part.source.id] += 1
    document = drop_repeated(load_document(path), job.repeated.get(part.source.id, frozenset()))
    name = file_id(part.source, part.file)
    for number, draft in enumerate(_drafts(job, document), 1):
        try:
            _take(job, part, draft, Origin(f"{name}#{number}", name, part.file.split), made, ledger)
        except Unusable as error:
            ledger.refuse_file(part.source, part.file, error.reason, RecordError(part.file.shown, str(error)))


def _drafts(job: Job, document: Document) -> Iterator[Draft]:
    pairs = list(instruct(document)) if job.instruct else []
    for question, answer in pairs:
        turns = Message("user", clean_text(question)), Message("assistant", clean_text(answer))
        yield Draft(turns, "qa")
    if not pairs:
        yield from _pieces(document, job)


def _pieces(document: Document, job: Job) -> Iterator[Draft]:
    for piece in chunk(document, job.chunk_tokens, approximate_tokens):
        text = clean_text(piece)
        if text:
            yield Draft((Message("assistant", text),), "text")


# --- every example ----------------------------------------------------------------------------------------------------


def _take(job: Job, part: Part, draft: Draft, origin: Origin, made: Made, ledger: Ledger) -> None:
    """Make an example of a draft, and keep it unless a step has a reason not to."""
    example = Example(
        id=origin.name,
        messages=draft.messages,
        task=draft.task,
        label=draft.label,
        choices=draft.choices,
        group=origin.group or (context_group(draft.context) if draft.context else None),
        source=part.source.id,
        license=part.source.license,
    )
    if any(looks_rendered(turn.content) for turn in example.messages):
        raise Unusable(
            "rendered_template",
            "the text is a conversation with a model's control tokens already in it, which training would add a second "
            "time. Give the turns as messages",
        )
    example = _without_control_tokens(example, ledger)
    reason = None if origin.official else _unwanted(job, example)
    if reason is not None:
        ledger.drops.append(Drop(origin.name, *reason))
        return
    asked = answered = ""
    if job.evals is not None and not origin.official:
        asked = "\n".join(turn.content for turn in example.prompt if turn.role != "system")
        answered = example.answer
    if job.scrub:
        example = _scrubbed(example, ledger)
    context = scrub(draft.context, Counter()) if job.scrub and draft.context else draft.context
    made.rows.append(Placed(example, origin, asked, answered, context))


def _unwanted(job: Job, example: Example) -> tuple[str, str] | None:
    """The step and the reason for which an example is left out."""
    reason = filter_example(example) if job.quality else None
    if reason is not None:
        return "quality", reason
    if job.languages and example.task != "translation":
        text = "\n".join(turn.content for turn in example.messages if turn.role != "system")
        if is_foreign(text, job.languages):
            return "language", "foreign_language"
    return None


def _without_control_tokens(example: Example, ledger: Ledger) -> Example:
    made = [escape_control_tokens(turn.content) for turn in example.messages]
    number = sum(count for _, count in made)
    if not number:
        return example
    ledger.neutralised += number
    turns = [replace(turn, content=text) for turn, (text, _) in zip(example.messages, made, strict=True)]
    return replace(example, messages=tuple(turns))


def _scrubbed(example: Example, ledger: Ledger) -> Example:
    """The example without identifiers; a label stays as it is."""
    kept = 1 if example.task == "classification" else 0
    cut = len(example.messages) - kept
    texts = [scrub(turn.content, ledger.scrubbed) for turn in example.messages[:cut]]
    if all(text is turn.content for text, turn in zip(texts, example.messages, strict=False)):
        return example
    turns = [replace(turn, content=text) for turn, text in zip(example.messages, texts, strict=False)]
    return replace(example, messages=(*turns, *example.messages[cut:]))


def all_found(part: Part, found: set[str]) -> None:
    """Make sure that a test set is whole.

    Raises:
        InputError: some of its ids were not there.
    """
    lacking = len(part.test_ids - found)
    if lacking:
        raise InputError(
            f"{part.file.shown} lacks {lacking} of the {len(part.test_ids)} official test ids of {part.source.id}: the "
            "data set is not the one that the recipe was written for. Give an older revision of it"
        )
