"""Finds the labels of rows: in a column, in a column of lists, or in columns of zeros and ones, one per label."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from finetune.errors import Unusable
from finetune.prepare.formats.files import Row
from finetune.prepare.rows.columns import Values, is_null, list_names, parse_json, plain_columns

SEVERAL = "labels"  # the column of several labels, also in --map
INDICATORS = {"0": False, "0.0": False, "false": False, "1": True, "1.0": True, "true": True}


@dataclass(frozen=True)
class LabelColumns:
    """The mapping of names to columns, in which `label` stands for all labels.

    `indicators` are columns of zeros and ones, each named after its label; `is_assumed` says that nobody asked for the
    column `labels` to be read as the label.
    """

    mapping: Mapping[str, str]
    indicators: tuple[str, ...] = ()
    is_assumed: bool = False

    @property
    def asked(self) -> frozenset[str]:
        """The names that must be read because the user mapped them."""
        names = frozenset(self.mapping) - ({"label"} if self.is_assumed else set())
        return names | {"label"} if self.indicators else names


def find_labels(
    rows: Sequence[Row], mapping: Mapping[str, str], separator: str | None, ignored: Iterable[str]
) -> LabelColumns:
    """Where the labels of the rows are, if they have any."""
    columns = [plain_columns(row.values) for row in rows]
    if SEVERAL in mapping:
        rest = {name: column for name, column in mapping.items() if name != SEVERAL}
        wanted = mapping[SEVERAL]
        if "," not in wanted or any(wanted.strip().lower() in each for each in columns):
            return LabelColumns({**rest, "label": wanted})
        return LabelColumns(rest, tuple(name.strip() for name in wanted.split(",")))
    if "label" not in mapping and SEVERAL not in ignored and _are_several(columns, separator):
        return LabelColumns({**mapping, "label": SEVERAL}, is_assumed=True)
    return LabelColumns(mapping)


def _are_several(rows: Sequence[Values], separator: str | None) -> bool:
    """Whether the column `labels` holds lists, or texts to divide, and no other column is the label."""
    if any("label" in row for row in rows):
        return False
    values = [value for row in rows if not is_null(value := parse_json(row.get(SEVERAL)))]
    return bool(values) and all(isinstance(value, list) or (separator and isinstance(value, str)) for value in values)


def read_indicators(columns: Values, names: Iterable[str]) -> list[str]:
    """The labels whose columns contain a one.

    Raises:
        Unusable: a column does not exist, or contains something else, such as the -1 of rows without labels.
    """
    return [name for name in names if _read_indicator(columns, name)]


def _read_indicator(columns: Values, name: str) -> bool:
    if name.lower() not in columns:
        raise Unusable("missing_column", f"there is no column {name!r}. Columns found: {list_names(columns)}")
    value = str(columns[name.lower()]).strip().lower()
    if value not in INDICATORS:
        raise Unusable(
            "no_label", f"the column {name!r} is neither 0 nor 1. Correct it, or drop such rows with --on-error skip"
        )
    return INDICATORS[value]


def check_indicators(rows: Iterable[Row], ignored: Iterable[str]) -> None:
    """Refuse rows of text with several columns of nothing but the figures 0 and 1: these are likely to be labels.

    Raises:
        Unusable: names the columns, and says how to read them or do without them.
    """
    written: dict[str, set[str]] = {}
    for row in rows:
        for name, value in plain_columns(row.values).items():
            written.setdefault(name, set()).update(() if is_null(value) else {str(value)})
    names = [name for name, values in written.items() if values == {"0", "1"} and name not in ignored]
    if len(names) > 1:
        raise Unusable(
            "unread_column",
            f"the columns {list_names(names)} contain zeros and ones, and look like several labels of the text. To read them: "
            f"--map {SEVERAL}={','.join(names)}. To do without them: {' '.join(f'--ignore {name}' for name in names)}",
        )
