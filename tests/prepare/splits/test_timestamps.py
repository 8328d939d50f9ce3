"""Dates and times as rows write them, and the rule of --split-by-time."""

from __future__ import annotations

import pytest

from finetune.errors import InputError
from finetune.prepare.splits.timestamps import TimeRule, parse_time_rule, parse_timestamp


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-02", 86_400.0),
        (" 1970-01-01T01:00:00+01:00 ", 0.0),
        ("1970-01-01T00:00:10Z", 10.0),
        ("1.5", 1.5),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_a_date_a_time_or_seconds_are_read(text: str, seconds: float | None) -> None:
    assert parse_timestamp(text) == seconds


def test_the_rule_may_leave_the_timestamps_to_the_shares() -> None:
    assert parse_time_rule(None) is None
    assert parse_time_rule("day") == TimeRule("day")
    assert parse_time_rule("day=1970-01-02/1970-01-03") == TimeRule("day", (86_400.0, 172_800.0))
    with pytest.raises(InputError, match="COLUMN=VALIDATION_FROM/TEST_FROM"):
        parse_time_rule("day=1970-01-03/1970-01-02")
