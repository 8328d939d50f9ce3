"""Accesses the columns of a row: in any case, nested, and as text."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.text import clean_text

Values = Mapping[str, Any]

NAMES = frozenset({"group", "id", "label", "task", "time"})  # short texts that are compared, and always cleaned
ANSWERS = frozenset({"answer", "completion", "output"})
EXACT = 2**53  # above, a float has digits that nobody wrote
SINGLE = ANSWERS | {"label", "question", "instruction", "prompt", "system"}  # a list in these is never one text
BLANKS = frozenset({"", "[]", "{}"})
SHOWN_NAMES, SHOWN_CHARACTERS = 12, 24


def plain_columns(values: Values, aliases: Mapping[str, str] | None = None) -> dict[str, Any]:
    """The columns by name, ignoring case and surrounding white space; of equal names, the first is kept.

    A column whose name is one of `aliases` (alias -> name) takes that name, unless another column has it.
    """
    plain: dict[str, Any] = {}
    for name, value in values.items():
        plain.setdefault(str(name).strip().lower(), value)
    for alias, name in (aliases or {}).items():
        if alias in plain and name not in plain:
            plain[name] = plain.pop(alias)
    return plain


def map_columns(values: Values, mapping: Mapping[str, str], plain: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The columns under plain names, overridden by `mapping` (name -> column; dots select nested fields, numbers items).

    Raises:
        Unusable: a mapped column does not exist.
    """
    columns = plain_columns(values) if plain is None else plain
    return {**columns, **{name: _reach(values, column) for name, column in mapping.items()}}


def _reach(values: Values, column: str) -> Any:
    plain = plain_columns(values)
    if column in values:
        return values[column]
    if column.strip().lower() in plain:
        return plain[column.strip().lower()]
    head, dot, rest = column.partition(".")
    if dot and isinstance(plain.get(head.lower()), Mapping):
        return _reach(plain[head.lower()], rest)
    if rest.isdecimal() and isinstance(items := plain.get(head.lower()), list) and int(rest) < len(items):
        return items[int(rest)]
    raise Unusable("missing_column", f"there is no column {column!r}. Columns found: {list_names(values)}")


def list_siblings(values: Values, column: str) -> Iterator[str]:
    """The dotted names of the fields beside a nested one that have a value: those that mapping it leaves out."""
    path = ""
    while column.strip().lower() not in (plain := plain_columns(values)):
        head, _, column = column.strip().lower().partition(".")
        inner = plain.get(head)
        if not isinstance(inner, Mapping):
            return
        path, values = f"{path}{head}.", inner
        inside = {column, column.partition(".")[0]}
        yield from (
            path + name for name, value in plain_columns(inner).items() if name not in inside and has_value(value)
        )


def required_text(columns: Values, name: str) -> str:
    """A column as text; numbers are written out, and lists of texts joined by line breaks except in `SINGLE`.

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


def parse_json(value: object) -> object:
    """The list or object that a text holds as JSON, as in columns of a CSV file; any other value unchanged."""
    if isinstance(value, str) and value.lstrip()[:1] in {"[", "{"}:
        with suppress(ValueError):
            return json.loads(value)
    return value


def drop_nulls(value: Any) -> Any:
    """A list or object without the keys whose values are null, in objects at any depth."""
    if isinstance(value, Mapping):
        return {key: drop_nulls(each) for key, each in value.items() if each is not None}
    return [drop_nulls(each) for each in value] if isinstance(value, list) else value


def list_names(columns: Iterable[str]) -> str:
    """Column names for a message, shortened: in a file without a header they are the text of a row."""
    names = [str(name)[:SHOWN_CHARACTERS] for name in columns]
    more = f" and {len(names) - SHOWN_NAMES} more" if len(names) > SHOWN_NAMES else ""
    return ", ".join(names[:SHOWN_NAMES]) + more if names else "none"


def is_null(value: object) -> bool:
    """Whether a value is missing: null, or the NaN of data frames."""
    return value is None or (isinstance(value, float) and value != value)


def has_value(value: object) -> bool:
    """Whether there is anything in a value: not null, blank or empty, also when an empty list is written as text."""
    if isinstance(value, str):
        return value.strip() not in BLANKS
    return not is_null(value) and value not in ([], {}, ())


def _as_text(value: object, name: str) -> str:
    text = value if isinstance(value, str) else _write_out(value, name)
    if name not in NAMES:
        return text
    try:
        return clean_text(strip_markup(text))
    except UnicodeEncodeError:
        raise Unusable(
            "broken_unicode", f"the column {name!r} contains half of a surrogate pair. Save the file again as UTF-8"
        ) from None


def _write_out(value: object, name: str) -> str:
    """A value that is not text, written as text."""
    if isinstance(value, list) and name in SINGLE:
        value = _only(value, name)
    if isinstance(value, list) and all(isinstance(part, str) for part in value):
        value = "\n".join(value)
    if isinstance(value, float):  # data frames turn integers into floats if a column has gaps
        value = int(value) if value.is_integer() and abs(value) < EXACT else repr(value).replace("e+", "e")
    if isinstance(value, Mapping):
        fields = " or ".join(f"--map {name}={name}.{field}" for field in list(map(str, value))[:2])
        raise Unusable(
            "not_text", f"the column {name!r} is an object, not text. Select a field of it, such as {fields}"
        )
    if not isinstance(value, str | int | float):
        raise Unusable("not_text", f"the column {name!r} is a {type(value).__name__}, not text. Write it as text")
    return str(value)


def _only(values: list[Any], name: str) -> Any:
    """The only element of a list: several answers are a choice that slmtune cannot make, several labels no class."""
    if len(values) > 1:
        raise Unusable(
            "several_values",
            f"the column {name!r} is a list of {len(values)} values. Write one row for each, with one value in {name!r}",
        )
    return values[0] if values else ""
