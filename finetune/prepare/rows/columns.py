"""Accesses the columns of a row: in any case, nested, and as text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.text import clean_text

Values = Mapping[str, Any]

NAMES = frozenset({"group", "id", "label", "task", "time"})  # short texts that are compared, and always cleaned
ANSWERS = frozenset({"answer", "completion", "output"})
EXACT = 2**53  # above, a float has digits that nobody wrote
SHOWN_NAMES, SHOWN_CHARACTERS = 12, 24


def plain_columns(values: Values) -> dict[str, Any]:
    """The columns by name, ignoring case and surrounding white space; of equal names, the first is kept."""
    plain: dict[str, Any] = {}
    for name, value in values.items():
        plain.setdefault(str(name).strip().lower(), value)
    return plain


def map_columns(values: Values, mapping: Mapping[str, str]) -> dict[str, Any]:
    """The columns under plain names, overridden by `mapping` (name -> column; dots select nested fields).

    Raises:
        Unusable: a mapped column does not exist.
    """
    columns = plain_columns(values)
    return columns | {name: _reach(values, column) for name, column in mapping.items()}


def _reach(values: Values, column: str) -> Any:
    plain = plain_columns(values)
    if column in values:
        return values[column]
    if column.strip().lower() in plain:
        return plain[column.strip().lower()]
    head, dot, rest = column.partition(".")
    if dot and isinstance(plain.get(head.lower()), Mapping):
        return _reach(plain[head.lower()], rest)
    raise Unusable("missing_column", f"there is no column {column!r}. Columns found: {list_names(values)}")


def required_text(columns: Values, name: str) -> str:
    """A column as text; numbers are written out and lists of texts joined by line breaks.

    Raises:
        Unusable: the column is missing, null, empty or of another kind.
    """
    reason = "no_answer" if name in ANSWERS else "no_label" if name == "label" else "empty_field"
    if name not in columns:
        raise Unusable("missing_column", f"there is no column {name!r}. Columns found: {list_names(columns)}")
    value = columns[name]
    if is_null(value):
        raise Unusable(reason, f"the column {name!r} is null. Fill it in, or drop such rows with --on-error skip")
    text = _as_text(value, name)
    if not text or text.isspace():
        raise Unusable(reason, f"the column {name!r} is empty. Fill it in, or drop such rows with --on-error skip")
    return text


def optional_text(columns: Values, name: str) -> str:
    """A column as text, or "" if it is missing, null or empty."""
    value = columns.get(name)
    text = "" if is_null(value) else _as_text(value, name)
    return "" if text.isspace() else text


def list_names(columns: Iterable[str]) -> str:
    """Column names for a message, shortened: in a file without a header they are the text of a row."""
    names = [str(name)[:SHOWN_CHARACTERS] for name in columns]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more if names else "none"


def is_null(value: object) -> bool:
    """Whether a value is missing: null, or the NaN of data frames."""
    return value is None or (isinstance(value, float) and value != value)


def _as_text(value: object, name: str) -> str:
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, float):  # data frames turn integers into floats if a column has gaps
        value = int(value) if value.is_integer() and abs(value) < EXACT else repr(value).replace("e+", "e")
    if not isinstance(value, str | int | float):
        raise Unusable(
            "not_text",
            f"the column {name!r} is a {type(value).__name__}, not text. Select a field of it with --map {name}=COLUMN.FIELD",
        )
    if name not in NAMES:
        return str(value)
    try:
        return clean_text(strip_markup(str(value)))
    except UnicodeEncodeError:
        raise Unusable(
            "broken_unicode", f"the column {name!r} contains half of a surrogate pair. Save the file again as UTF-8"
        ) from None
