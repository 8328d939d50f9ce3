"""Parses timestamps in rows and options, for splits by time."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from finetune.errors import InputError


@dataclass(frozen=True, slots=True)
class TimeRule:
    """The column of `--split-by-time`, and the timestamps from which rows are validation and test, if given."""

    column: str
    starts: tuple[float, float] | None = None


def parse_time_rule(text: str | None) -> TimeRule | None:
    """Read `COLUMN` or `COLUMN=VALIDATION_FROM/TEST_FROM`.

    Raises:
        InputError: the timestamps are malformed or in the wrong order.
    """
    if text is None:
        return None
    column, separator, starts = text.partition("=")
    if not separator:
        return TimeRule(column)
    first, _, second = starts.partition("/")
    validation, test = parse_timestamp(first), parse_timestamp(second)
    if validation is None or test is None or validation >= test:
        raise InputError(
            f"--split-by-time {text} cannot be used. Write it as COLUMN=VALIDATION_FROM/TEST_FROM, for example "
            "date=2024-01-01/2024-07-01"
        )
    return TimeRule(column, (validation, test))


def parse_timestamp(text: str) -> float | None:
    """Seconds since 1970 from a date, an ISO 8601 time or a number of seconds; None for anything else."""
    try:
        time = datetime.fromisoformat(text.strip())
    except ValueError:
        try:
            number = float(text)
        except ValueError:
            return None
        return number if isfinite(number) else None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
