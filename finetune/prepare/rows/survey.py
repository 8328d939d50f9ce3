"""Surveys every file: the shape of its rows and, for labelled texts, the labels."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any

from finetune.errors import ConfigError, InputError, RecordError, Unusable
from finetune.prepare.documents.readers import TEXTS
from finetune.prepare.drops import Drops
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import BadRow, DataFile, Row
from finetune.prepare.formats.readers import read_rows
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.cleaning import PROSE, Degree, choose_degrees, survey_texts
from finetune.prepare.rows.columns import is_null, map_columns, optional_text, plain_columns
from finetune.prepare.rows.prompts import Prompt, load_prompt
from finetune.prepare.rows.shapes import (
    MAX_LABELS,
    SHAPES,
    TEXT_AND_LABEL,
    Shape,
    choose_shape,
    classification,
    distinct_labels,
    domain_shape,
)
from finetune.prepare.sources.local import is_document
from finetune.prepare.sources.source import Source
from finetune.recipe import Domain

LOOKED_AT = 1000  # rows that decide the shape of a file; the others must fit it
INPUTS = {"text", "question", "context"}  # columns that the prompt of a domain must not ignore
DOCUMENT = "document"


@dataclass(frozen=True)
class Part:
    """A file of a source and the shape of its rows; a document has no shape.

    `kinds` are the kinds of the values in its columns, `cleaning` the degree to which each is cleaned, `test_ids` the ids
    of a test set inside another split.
    """

    source: Source
    file: DataFile
    shape: Shape | None
    mapping: Mapping[str, str] = field(default_factory=dict)
    kinds: Mapping[str, str] = field(default_factory=dict)
    test_ids: frozenset[str] = frozenset()
    cleaning: Mapping[str, Degree] = field(default_factory=dict)

    @cached_property
    def is_clean(self) -> bool:
        """Whether all texts are cleaned in full."""
        return set(self.cleaning.values()) == {"full"}

    @cached_property
    def has_entities(self) -> bool:
        """Whether the texts may contain HTML entities that no parser has decoded."""
        name = inner_name(self.file.path, self.file.member)
        return self.shape is not None or Path(name).suffix.lower() in TEXTS

    @property
    def wrapped(self) -> tuple[str, ...]:
        """The columns whose texts lose their markup because most of them have it."""
        return tuple(name for name, degree in self.cleaning.items() if degree == "full" and name not in PROSE)

    @property
    def shape_name(self) -> str:
        """The name of the shape of its rows."""
        return self.shape.name if self.shape else DOCUMENT


def survey(sources: Sequence[Source], request: PrepareRequest, domain: Domain | None, drops: Drops) -> list[Part]:
    """Read the first rows of every file, and all labels if the labels are the choices.

    Raises:
        InputError: a file cannot be used, and `--on-error` is `fail`.
    """
    parts = []
    for source in sources:
        for file in source.files:
            try:
                parts.append(_look(source, file, request, domain, drops))
            except InputError as error:
                reason = "unknown_columns" if isinstance(error, RecordError) else "unreadable"
                drops.refuse_file(source, file, reason, error)
    return list(_with_choices(parts, request))


def kind_of(value: object) -> str | None:
    """The kind of a value, for comparing rows; null has none, and all numbers have the same."""
    if is_null(value):
        return None
    if isinstance(value, int | float):
        return "number"
    names: dict[type, str] = {str: "text", list: "list", dict: "object"}
    return names.get(type(value), type(value).__name__)


def _look(source: Source, file: DataFile, request: PrepareRequest, domain: Domain | None, drops: Drops) -> Part:
    mapping = dict(source.recipe.map if source.recipe else request.columns)
    if is_document(file):
        return Part(source, file, None, cleaning={"text": request.clean})
    first = list(islice(read_rows(file), LOOKED_AT))
    if not first:
        raise InputError(f"{file.shown} has no rows. Use a file with at least one")
    broken = next((row for row in first if isinstance(row, BadRow)), None)
    if broken is not None and drops.on_error == "fail":
        raise RecordError(f"{file.shown}:{broken.line}", broken.problem)
    rows = [row for row in first if isinstance(row, Row)]
    shape = _shape_of(source, file, rows, request, domain)
    ids = _official_ids(source, domain)
    degrees = choose_degrees((*shape.needs, *shape.optional), request.clean)
    if request.clean == "full":
        degrees |= survey_texts(rows, mapping, {*degrees} - PROSE)
    return Part(source, file, shape, mapping, _kinds(rows, shape, mapping), ids, degrees)


def _kinds(rows: Sequence[Row], shape: Shape, mapping: Mapping[str, str]) -> dict[str, str]:
    """The most common kind of each column that the shape reads, and of the id."""
    used = {*shape.needs, *shape.optional, "id"} - set(mapping)
    counts: dict[str, Counter[str]] = {}
    for row in rows:
        for name, value in plain_columns(row.values).items():
            kind = kind_of(value) if name in used else None
            if kind is not None:
                counts.setdefault(name, Counter())[kind] += 1
    return {name: kinds.most_common(1)[0][0] for name, kinds in sorted(counts.items())}


def _shape_of(
    source: Source, file: DataFile, rows: Sequence[Row], request: PrepareRequest, domain: Domain | None
) -> Shape:
    if source.recipe is not None:
        assert domain is not None
        return _task_shape(domain, source.recipe.task, source.recipe.labels, source.recipe.answer_template)
    if not rows:
        return SHAPES[-1]  # all rows will be refused, so any shape will do
    counts = Counter(name for row in rows for name in plain_columns(row.values))
    names = [name for name, number in counts.items() if 2 * number >= len(rows)] or list(counts)
    names += [name for name in request.columns if name not in names]
    if domain is not None and (shape := _fitting_task(domain, names, file, request)) is not None:
        return shape
    try:
        return choose_shape(names, request.columns)
    except Unusable as error:
        raise RecordError(f"{file.shown}:{rows[0].line}", str(error)) from None


def _fitting_task(domain: Domain, names: Sequence[str], file: DataFile, request: PrepareRequest) -> Shape | None:
    """The domain's task whose prompt reads these columns and, for classification, whose choices these labels are."""
    for task, recipe in domain.recipe.tasks.items():
        shape = _task_shape(domain, task, {})
        if not set(shape.needs) <= set(names) or INPUTS & set(names) - set(shape.needs):
            continue
        if not recipe.choices:
            return shape
        choices = {choice.casefold() for choice in recipe.choices}
        found = _labels(file, request.columns, len(choices))
        if request.instruction is None and {label.casefold() for label in found} <= choices:
            return shape
    return None


def _task_shape(domain: Domain, task: str, labels: Mapping[str, str], template: str | None = None) -> Shape:
    recipe = domain.recipe.tasks[task]
    answer = Prompt("answer_template", template) if template else None
    return domain_shape(f"{domain.name} {task}", recipe, load_prompt(domain, task), labels, answer)


def _labels(file: DataFile, mapping: Mapping[str, str], enough: int) -> set[str]:
    """The labels of all rows of a file; stops once there are more than `enough`."""
    found: set[str] = set()
    raw: set[Any] = set()
    for row in read_rows(file):
        try:
            value = map_columns(row.values, mapping).get("label") if isinstance(row, Row) else None
            if isinstance(value, str | int | float) and value in raw:
                continue
            found.add(optional_text({"label": value}, "label"))
        except Unusable:
            continue  # refused when its turn comes
        if isinstance(value, str | int | float):
            raw.add(value)
        if len(found - {""}) > enough:
            break
    return found - {""}


def _with_choices(parts: Sequence[Part], request: PrepareRequest) -> Iterator[Part]:
    """Give classification rows their choices: all labels of the files that share a label."""
    labels = {
        id(part): _labels(part.file, request.columns, MAX_LABELS) for part in parts if part.shape is TEXT_AND_LABEL
    }
    if request.instruction is not None and not labels:
        raise InputError(
            "--instruction sets the question for rows of text and label, but no source has such rows. Drop the option"
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


def _official_ids(source: Source, domain: Domain | None) -> frozenset[str]:
    """The ids of a test set inside another split."""
    if source.recipe is None or source.recipe.test_ids is None or domain is None:
        return frozenset()
    file = domain.folder / source.recipe.test_ids
    try:
        return frozenset(file.read_text("utf-8").split())
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(str(domain.folder / "recipe.yaml"), [f"{file.name} cannot be read ({reason})"]) from None
