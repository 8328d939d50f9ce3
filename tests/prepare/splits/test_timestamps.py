"""Dates and times as rows write them, and the rule of --split-by-time."""

from __future__ import annotations

import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import InputError
from finetune.prepare.splits.timestamps import TimeRule, parse_time_rule, parse_timestamp, write_timestamp


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400.0),
        (" 1970-01-01T01:00:00+01:00 ", 0.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("soon", None),
        ("", None),
    ],
)
def test_a_date_or_a_time_is_read(text: str, seconds: float | None) -> None:
    assert parse_timestamp(text) == seconds


@pytest.mark.parametrize(
    ("value", "moment"),
    [
        # A year or a month counts as its last day.
        *((value, "2024-12-31") for value in ("2024", 2024, 2024.0, "2024.0")),
        *((value, "2024-02-29") for value in ("2024-02", "2024/02", 202402)),
        *(
            (value, "2024-04-03")
            for value in ("20240403", 20240403, "2024/04/03", date(2024, 4, 3), datetime(2024, 4, 3))
        ),
        # Seconds, milliseconds, microseconds and nanoseconds.
        *((1712102400 * 10**power, "2024-04-03") for power in (0, 3, 6, 9)),
        *((value, "2024-04-03") for value in ("1712102400000", 1712102400.0, 1712102400000.0, Decimal(1712102400))),
        ("20240403123000", "2024-04-03T12:30:00+00:00"),
        (datetime(2024, 4, 3, 2, tzinfo=timezone(timedelta(hours=2))), "2024-04-03"),
        (-1_000_000_000, "1938-04-24T22:13:20+00:00"),
        # Neither dates nor numbers that a clock gives.
        *((value, None) for value in (1.5, 99, "45292", "2024-13", "31/12/2024", math.nan, math.inf, 10**400, "nan")),
        *((value, None) for value in (None, True, [2024], Decimal("NaN"), "9" * 30, datetime.max)),
    ],
)
def test_values_of_files_are_read(value: object, moment: str | None) -> None:
    seconds = parse_timestamp(value)
    assert (None if seconds is None else write_timestamp(seconds)) == moment


@given(st.datetimes(datetime(1980, 1, 1), datetime(2199, 1, 1)), st.sampled_from([1, 10**3, 10**6, 10**9]))
def test_every_unit_gives_the_same_moment(moment: datetime, unit: int) -> None:
    seconds = int(moment.replace(tzinfo=UTC).timestamp())
    assert parse_timestamp(seconds * unit) == parse_timestamp(str(seconds * unit)) == pytest.approx(seconds, abs=1e-5)
    assert parse_timestamp(write_timestamp(seconds)) == seconds


def test_the_rule_may_leave_the_timestamps_to_the_shares() -> None:
    assert parse_time_rule(None) is None
    assert parse_time_rule("day") == TimeRule("day")
    assert parse_time_rule("day=1970-01-02/1970-01-03") == TimeRule("day", (86_400.0, 172_800.0))
    assert parse_time_rule("year=2022/2023") == parse_time_rule("year=2022-01-01/2023-01-01")
    with pytest.raises(InputError, match="COLUMN=VALIDATION_FROM/TEST_FROM"):
        parse_time_rule("day=1970-01-03/1970-01-02")
