"""A file of a source and the shape of its rows, and how one row is read in that shape."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.clean.text import Changes
from finetune.prepare.documents.readers import TEXTS
from finetune.prepare.formats.containers import inner_name
from finetune.prepare.formats.files import DataFile, Row
from finetune.prepare.rows.cleaning import PROSE, Degree, clean_columns
from finetune.prepare.rows.columns import (
    drop_nulls,
    has_value,
    is_null,
    list_names,
    list_siblings,
    map_columns,
    plain_columns,
)
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.label_columns import read_indicators
from finetune.prepare.rows.meaning import check_unread
from finetune.prepare.rows.shapes import ALIASES, Shape
from finetune.prepare.sources.source import Source
from finetune.records import SPLIT_WORDS, Split, UnusedKind

DOCUMENT = "document"
SPLIT = "split"  # the column that may name the split of each row
TYPED = frozenset({".parquet", ".arrow", ".feather"})  # formats in which an object has the keys of all others


@dataclass(frozen=True)
class Part:
    """A file of a source and the shape of its rows; a document has no shape.

    `mapping` is name -> column, `ignored` names columns to do without, `extra` further columns that are read. `has_splits`
    says that the column `split` names the split of each row; `label_kind` is the usual kind of the labels, `test_ids` the
    ids of a test set inside another split. `cleaning` is the degree to which each column is cleaned. `is_preference` says
    that its rows are for preference tuning; `separator` divides a text in the column `label` into several labels, and
    `indicators` are columns of zeros and ones that each stand for a label.
    """

    source: Source
    file: DataFile
    shape: Shape | None
    mapping: Mapping[str, str] = field(default_factory=dict)
    ignored: frozenset[str] = frozenset()
    extra: frozenset[str] = frozenset()
    has_splits: bool = False
    label_kind: str | None = None
    test_ids: frozenset[str] = frozenset()
    cleaning: Mapping[str, Degree] = field(default_factory=dict)
    is_preference: bool = False
    separator: str | None = None
    indicators: tuple[str, ...] = ()

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

    @cached_property
    def aliases(self) -> dict[str, str]:
        """Other names of columns that the shape reads -> their names."""
        assert self.shape is not None
        away = {*self.mapping, *self.ignored}
        return {
            alias: name
            for name in sorted(self.shape.columns - away)
            for alias in ALIASES.get(name, ())
            if alias not in self._mapped | self.ignored
        }

    @cached_property
    def reads(self) -> frozenset[str]:
        """The columns that are read, by plain name; all others are unused."""
        assert self.shape is not None
        own = self.shape.columns | ({SPLIT} if self.has_splits else set())
        return (
            (own - self.mapping.keys()) | self._mapped | self.extra | {*map(str.lower, self.indicators)}
        ) - self.ignored

    def columns(self, row: Row, plain: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The columns of a row, as `mapping` and `aliases` name them, without the ignored ones.

        Raises:
            Unusable: a mapped column does not exist.
        """
        plain = plain_columns(row.values, self.aliases) if plain is None else plain
        columns = map_columns(row.values, self.mapping, plain)
        for name in self._left_out:
            columns.pop(name, None)
        if self.indicators:
            columns["label"] = read_indicators(columns, self.indicators)
        if self.separator is not None and isinstance(text := columns.get("label"), str):
            columns["label"] = [label for label in text.split(self.separator) if label.strip()]
        if self._has_nulls:
            columns = {name: drop_nulls(value) for name, value in columns.items()}
        return columns

    @cached_property
    def _has_nulls(self) -> bool:
        """Whether objects have null for each key that only others have."""
        return self.file.suffix in TYPED and self.shape is not None and "tools" in self.shape.columns

    @cached_property
    def _left_out(self) -> frozenset[str]:
        return self.ignored - self.mapping.keys()

    @cached_property
    def _mapped(self) -> frozenset[str]:
        columns = [column.strip().lower() for column in self.mapping.values()]
        return frozenset(columns) | {column.partition(".")[0] for column in columns}

    @cached_property
    def nested(self) -> frozenset[str]:
        """The nested fields that are mapped."""
        return frozenset(column for column in self._mapped if "." in column)

    @cached_property
    def forbids(self) -> frozenset[str]:
        """The columns that must not be unused; the author of a recipe has decided about those of its sources."""
        if self.shape is None or self.source.recipe or self.source.earlier:
            return frozenset()
        return self.shape.forbids - self.ignored


@dataclass(frozen=True, slots=True)
class Reading:
    """A row in its shape: its columns, its draft, the split that it names, what it has and the draft lacks, and the kinds
    of changes that cleaning made.
    """

    columns: Mapping[str, Any]
    draft: Draft
    split: Split | None
    unread: frozenset[tuple[UnusedKind, str]]
    changes: Changes


def read_row(part: Part, row: Row) -> Reading:
    """Read a row in the shape of its part.

    Raises:
        Unusable: a column is missing or cannot be used, or one that changes what the row means would be left out.
    """
    assert part.shape is not None
    plain = plain_columns(row.values, part.aliases)
    columns = part.columns(row, plain)
    missing = [name for name in part.shape.needs if name not in columns]
    if missing:
        raise Unusable("missing_column", f"there is no column {missing[0]!r}. Columns found: {list_names(columns)}")
    _check_label(part, columns)
    unread = [name for name, value in plain.items() if name not in part.reads and has_value(value)]
    for name in unread:
        if name in part.forbids:
            check_unread(name, plain[name], part.shape.name)
    changes: Changes = set()
    draft = part.shape.build(clean_columns(columns, part.cleaning, changes))
    left = draft.unread | _named_unread(part, row, plain, unread)
    return Reading(columns, draft, _split(part, columns), left, changes)


def kind_of(value: object) -> str | None:
    """Whether a label, or the first of several, is a number or a text; null is neither."""
    if isinstance(value, list):
        value = value[0] if value else None
    if is_null(value):
        return None
    return "number" if isinstance(value, int | float) else "text"


def _check_label(part: Part, columns: Mapping[str, Any]) -> None:
    kind = kind_of(columns.get("label")) if part.label_kind is not None else None
    if kind is not None and kind != part.label_kind:
        raise Unusable("type_conflict", f"the column 'label' is a {kind} here and a {part.label_kind} in other rows")


def _split(part: Part, columns: Mapping[str, Any]) -> Split | None:
    value = columns.get(SPLIT)
    if not part.has_splits or not has_value(value):
        return None
    split = SPLIT_WORDS.get(str(value).strip().lower())
    if split is None:
        raise Unusable(
            "unknown_split",
            "the column 'split' names no split here, but train, validation or test in other rows. Correct it, or divide "
            "all rows anew with --ignore split",
        )
    return split


def _named_unread(
    part: Part, row: Row, plain: Mapping[str, Any], unread: Collection[str]
) -> frozenset[tuple[UnusedKind, str]]:
    """The columns that are not read, also those of equal names and the fields beside those that are mapped."""
    names = set(unread)
    if len(plain) < len(row.values):
        seen: set[str] = set()
        for name, value in row.values.items():
            key = str(name).strip().lower()
            if key in seen and has_value(value):
                names.add(f"{key} (again)")
            seen.add(key)
    for column in part.nested:
        names.update(name for name in list_siblings(row.values, column) if name not in part.nested)
    return frozenset([("column", name) for name in names]) if names else frozenset()
