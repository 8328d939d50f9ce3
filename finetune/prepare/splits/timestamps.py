"""Reads the times of rows and options, for splits by time."""

from __future__ import annotations

import calendar
import re
from dataclasses import dataclass
from datetime import UTC, date, datetime
from decimal import Decimal

from finetune.errors import InputError

YEARS = range(1500, 2200)
MONTH = re.compile(r"(\d{4})(?:[-/]?(\d{2})|\.0)?")
EARLIEST = 1e8  # seconds: March 1973. Smaller numbers are years, days of a spreadsheet or row numbers
LATEST = 6e10  # seconds before or after 1970: the years 69 to 3871. Larger numbers count milli-, micro- or nanoseconds


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
    validation, test = parse_timestamp(first, latest=False), parse_timestamp(second, latest=False)
    if validation is None or test is None or validation >= test:
        raise InputError(
            f"--split-by-time {text} cannot be used. Write it as COLUMN=VALIDATION_FROM/TEST_FROM, for example "
            "date=2024-01-01/2024-07-01"
        )
    return TimeRule(column, (validation, test))


def parse_timestamp(value: object, *, latest: bool = True) -> float | None:
    """Seconds since 1970 from a date, a time, a year, a month or a number; None for anything else.

    A year or a month stands for its last day, or for its first unless `latest`, so that a row of an unknown day is never
    older than it may be. Numbers are seconds since 1970 or, if too large for these, thousandths, millionths or billionths.
    """
    if isinstance(value, datetime):
        seconds = (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
        return seconds if abs(seconds) < LATEST else None
    if isinstance(value, date):
        return calendar.timegm(value.timetuple())
    if isinstance(value, bool) or not isinstance(value, str | int | float | Decimal):
        return None
    text = f"{value:.6f}".removesuffix(".000000") if isinstance(value, float | Decimal) else str(value).strip()
    month = MONTH.fullmatch(text)
    if month and int(month[1]) in YEARS and int(month[2] or 1) in range(1, 13):
        number, last = int(month[2] or (12 if latest else 1)), calendar.monthrange
        return calendar.timegm((int(month[1]), number, last(int(month[1]), number)[1] if latest else 1, 0, 0, 0))
    moment = _parse_date(text)
    return _of_number(text) if moment is None else parse_timestamp(moment)


def _parse_date(text: str) -> datetime | None:
    if text.isdecimal() and len(text) not in {8, 14}:
        return None  # a number: only 20241231 and 20241231235959 are dates
    try:
        return (
            datetime.strptime(text, "%Y%m%d%H%M%S")
            if len(text) == 14
            else datetime.fromisoformat(text.replace("/", "-"))
        )
    except ValueError:
        return None


def _of_number(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    for _ in range(3):
        number = number / 1000 if abs(number) > LATEST else number
    return number if EARLIEST <= abs(number) <= LATEST else None


def write_timestamp(seconds: float) -> str:
    """A timestamp in the form of `--split-by-time`: a date or, if it is not midnight in UTC, a time."""
    moment = datetime.fromtimestamp(seconds, UTC)
    return moment.isoformat().removesuffix("T00:00:00+00:00")
