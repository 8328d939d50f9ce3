"""From the files of the sources to examples: every row becomes one, or is refused with its file and line."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from finetune.errors import ConfigError, InputError, RecordError
from finetune.prepare.columns import Unusable, Values, list_names, map_columns, may_text, plain_columns
from finetune.prepare.files import BadRow, DataFile, Row, read_file
from finetune.prepare.prompts import load_prompt
from finetune.prepare.request import PrepareRequest
from finetune.prepare.scrub import scrub
from finetune.prepare.shapes import (
    SHAPES,
    TEXT_AND_LABEL,
    Shape,
    choose_shape,
    classification,
    distinct_labels,
    domain_shape,
)
from finetune.prepare.sources import Source
from finetune.recipe import Domain
from finetune.records import Drop, Example, Split

INPUTS = {"text", "question", "context"}  # columns that a prompt of a domain must not leave unread

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Loaded:
    """An example before its split is settled; `split` is None where the source leaves it open."""

    example: Example
    source: Source
    split: Split | None


@dataclass
class Ledger:
    """What happened to the rows that are not in the corpus, and how many were read of each source."""

    on_error: Literal["fail", "skip"]
    read: Counter[str] = field(default_factory=Counter)
    drops: list[Drop] = field(default_factory=list)
    scrubbed: Counter[str] = field(default_factory=Counter)

    def refuse(self, source: Source, file: DataFile, line: int, reason: str, problem: str) -> None:
        """Drop a row that cannot be used, or stop at it.

        Raises:
            RecordError: broken rows are not to be skipped.
        """
        expected = reason == "no_answer" and source.recipe is not None and source.recipe.drop_unanswered
        if self.on_error == "fail" and not expected:
            raise RecordError(f"{file.shown}:{line}", problem)
        self.drops.append(Drop(row_id(source, file, line), "read", reason))


@dataclass(frozen=True)
class Part:
    """A file's rows and the shape they have."""

    source: Source
    file: DataFile
    rows: Sequence[Row]
    shape: Shape


def row_id(source: Source, file: DataFile, line: int) -> str:
    """What a row is called in the corpus and among the dropped: source, file and line."""
    return f"{source.id}/{file.name}:{line}"


def load_rows(
    sources: Sequence[Source], request: PrepareRequest, domain: Domain | None, ledger: Ledger
) -> list[Loaded]:
    """Read all sources into memory.

    Raises:
        RecordError: a row cannot be used; names file and line.
        InputError: a file cannot be used.
    """
    parts = [_read_part(source, file, request, domain, ledger) for source in sources for file in source.files]
    test_ids = {source.id: _official_ids(source, domain) for source in sources}
    loaded: list[Loaded] = []
    shapes: Counter[tuple[str, str]] = Counter()
    for part in _with_choices(parts, request):
        rows = _build_part(part, request, ledger, test_ids[part.source.id])
        shapes[part.source.id, part.shape.name] += len(rows)
        loaded += rows
    for (source_id, shape), number in shapes.items():
        log.info("%s: %d rows as %s.", source_id, number, shape)
    return loaded


def _official_ids(source: Source, domain: Domain | None) -> frozenset[str]:
    """The ids of a test set that lies inside another split."""
    if source.recipe is None or source.recipe.test_ids is None or domain is None:
        return frozenset()
    file = domain.folder / source.recipe.test_ids
    try:
        return frozenset(file.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(str(domain.folder / "recipe.yaml"), [f"{file.name} cannot be read ({reason})"]) from None


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_part(source: Source, file: DataFile, request: PrepareRequest, domain: Domain | None, ledger: Ledger) -> Part:
    rows: list[Row] = []
    read = 0
    for item in read_file(file):
        read += 1
        if isinstance(item, BadRow):
            ledger.refuse(source, file, item.line, item.reason, item.problem)
        else:
            rows.append(item)
    if not read:
        raise InputError(f"{file.shown} has no rows. Give a file with at least one")
    ledger.read[source.id] += read
    return Part(source, file, rows, _shape_of(source, file, rows, request, domain))


def _shape_of(
    source: Source, file: DataFile, rows: Sequence[Row], request: PrepareRequest, domain: Domain | None
) -> Shape:
    if source.recipe is not None:
        assert domain is not None
        return _task_shape(domain, source.recipe.task, source.recipe.labels)
    if not rows:
        return SHAPES[-1]  # all of them were refused, so any shape will do
    names = list(dict.fromkeys(name for row in rows for name in plain_columns(row.values)))
    names += [name for name in request.columns if name not in names]
    if domain is not None and (shape := _fitting_task(domain, names, rows, request)) is not None:
        return shape
    try:
        return choose_shape(names, request.columns)
    except Unusable as error:
        raise RecordError(f"{file.shown}:{rows[0].line}", str(error)) from None


def _fitting_task(domain: Domain, names: Sequence[str], rows: Sequence[Row], request: PrepareRequest) -> Shape | None:
    """The domain's task whose prompt reads these columns and, for classification, whose choices these labels are."""
    for task, recipe in domain.recipe.tasks.items():
        shape = _task_shape(domain, task, {})
        if not set(shape.needs) <= set(names) or INPUTS & set(names) - set(shape.needs):
            continue
        if not recipe.choices:
            return shape
        choices = {choice.casefold() for choice in recipe.choices}
        if request.instruction is None and {label.casefold() for label in _labels(rows, request.columns)} <= choices:
            return shape
    return None


def _task_shape(domain: Domain, task: str, labels: Mapping[str, str]) -> Shape:
    recipe = domain.recipe.tasks[task]
    return domain_shape(f"{domain.name} {task}", recipe, load_prompt(domain, task), labels)


def _labels(rows: Sequence[Row], mapping: Mapping[str, str]) -> set[str]:
    found = set()
    for row in rows:
        try:
            found.add(may_text(map_columns(row.values, mapping), "label"))
        except Unusable:
            continue  # refused when its turn comes
    return found - {""}


def _with_choices(parts: Sequence[Part], request: PrepareRequest) -> Iterator[Part]:
    """Give classification rows their choices: all labels of the files that share a label."""
    labels = {id(part): _labels(part.rows, request.columns) for part in parts if part.shape is TEXT_AND_LABEL}
    if request.instruction is not None and not labels:
        raise InputError(
            "--instruction is the question for rows of text and label, and no source has such rows. Leave it out"
        )
    pools: list[set[str]] = []
    for found in labels.values():
        touching = [pool for pool in pools if pool & found]
        pools = [pool for pool in pools if not pool & found] + [found.union(*touching)]
    for part in parts:
        if part.shape is TEXT_AND_LABEL:
            pool = next(pool for pool in pools if labels[id(part)] <= pool)
            choices = distinct_labels(pool, part.file.shown)
            part = replace(part, shape=classification(choices, request.instruction))
        yield part


# --- building ---------------------------------------------------------------------------------------------------------


def _build_part(part: Part, request: PrepareRequest, ledger: Ledger, test_ids: frozenset[str]) -> list[Loaded]:
    source, file = part.source, part.file
    mapping = source.recipe.map if source.recipe else request.columns
    loaded: list[Loaded] = []
    found: set[str] = set()
    for row in part.rows:
        try:
            columns = map_columns(row.values, mapping)
            number = may_text(columns, "id") if test_ids else ""
            found |= {number} & test_ids
            example = _build(part, row, columns, may_text(columns, "group") if "group" in mapping else "")
        except Unusable as error:
            ledger.refuse(source, file, row.line, error.reason, str(error))
            continue
        if request.scrub:
            example = _scrubbed(example, ledger.scrubbed)
        loaded.append(Loaded(example, source, "test" if number in test_ids else file.split))
    if test_ids - found:
        raise InputError(
            f"{file.shown} lacks {len(test_ids - found)} of the {len(test_ids)} official test ids of {source.id}: "
            "the data set is not the one that the recipe was written for. Give an older revision of it"
        )
    return loaded


def _build(part: Part, row: Row, columns: Values, group: str) -> Example:
    missing = [name for name in part.shape.needs if name not in columns]
    if missing:
        raise Unusable("missing_column", f"there is no column {missing[0]!r}. Columns found: {list_names(columns)}")
    draft = part.shape.build(columns)
    return Example(
        id=row_id(part.source, part.file, row.line),
        messages=draft.messages,
        task=draft.task,
        label=draft.label,
        choices=draft.choices,
        group=group or None,
        source=part.source.id,
        license=part.source.license,
    )


def _scrubbed(example: Example, counts: Counter[str]) -> Example:
    """The example without identifiers; a label stays as it is."""
    kept = 1 if example.task == "classification" else 0
    cut = len(example.messages) - kept
    turns = [replace(turn, content=scrub(turn.content, counts)) for turn in example.messages[:cut]]
    return replace(example, messages=(*turns, *example.messages[cut:]))
