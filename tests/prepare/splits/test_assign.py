"""Where rows go when the source does not say: by group, by label in exact shares, by time; and never twice."""

from __future__ import annotations

import random
from collections import Counter
from datetime import date, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet as pq

from finetune.corpus.store import read_split
from finetune.errors import ConfigError, InputError, RecordError
from finetune.prepare.splits.assign import split_of
from finetune.prepare.splits.shares import parse_ratio
from finetune.records import SPLITS, Example, Split

from ..conftest import Prepared, Preparer, questions, write_jsonl


def homes(made: Prepared) -> dict[str, str]:
    """Question -> split."""
    return {row.messages[-2].content: split for split in SPLITS for row in read_split(made.corpus, split)}


def reviews(count: int, share_of_bad: float = 0.2) -> list[dict[str, str]]:
    draw = random.Random(3)
    words = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "pe", "ra") for b in ("ba", "do", "fi", "gu", "ze", "so")]
    return [
        {
            "text": f"Number {n}: " + " ".join(draw.choices(words, k=9)),
            "label": "bad" if n < count * share_of_bad else "good",
        }
        for n in range(count)
    ]


def test_stratified_splits_have_exact_shares_of_each_label(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", reviews(200))
    made = prepared(source, stratify=True, split_ratio="0.8/0.1/0.1")
    shares = {split: Counter(row.label for row in read_split(made.corpus, split)) for split in SPLITS}
    assert shares == {
        "train": {"good": 128, "bad": 32},
        "validation": {"good": 16, "bad": 4},
        "test": {"good": 16, "bad": 4},
    }


def test_stratified_groups_stay_whole(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"patient": f"p{n % 40}"} for n, row in enumerate(reviews(400))]
    made = prepared(
        write_jsonl(tmp_path / "rows.jsonl", rows),
        stratify=True,
        columns={"group": "patient"},
        split_ratio="0.5/0.25/0.25",
    )
    places: dict[str | None, set[str]] = {}
    for split in SPLITS:
        for row in read_split(made.corpus, split):
            places.setdefault(row.group, set()).add(split)
    assert len(places) == 40
    assert {len(splits) for splits in places.values()} == {1}
    assert "No question and no group is in two splits" in made.result.disjoint


def test_draws_by_hash_give_each_label_about_its_share(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", reviews(3000)), split_ratio="0.8/0.1/0.1", near_duplicates=1.0)
    shares: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
    for split, share in shares.items():
        labels = Counter(row.label for row in read_split(made.corpus, split))
        assert labels["bad"] / 600 == pytest.approx(share, abs=0.04)
        assert labels["good"] / 2400 == pytest.approx(share, abs=0.03)


def test_draws_follow_the_shares() -> None:
    shares = parse_ratio("0.8/0.15/0.05")
    draws = np.random.default_rng(42).integers(0, 2**64, 20_000, np.uint64)
    placed = split_of(draws, shares)
    for split, share in shares.items():
        assert (placed == SPLITS.index(split)).mean() == pytest.approx(share, abs=0.01)


@given(st.sampled_from(["train", "validation", "test"]), st.integers(0, 2**64 - 1))
def test_a_share_of_one_takes_every_row(split: Split, draw: int) -> None:
    assert split_of(np.array([draw], np.uint64), {split: 1.0}).tolist() == [SPLITS.index(split)]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=10)
@given(more=st.lists(st.integers(1000, 9999), max_size=30), front=st.booleans())
def test_rows_added_later_move_no_old_row(more: list[int], front: bool, prepared: Preparer, tmp_path: Path) -> None:
    old, new = questions(60), [question for start in more for question in questions(1, start)]
    ratio = "0.6/0.2/0.2"
    first = prepared(write_jsonl(tmp_path / "a.jsonl", old), split_ratio=ratio)
    second = prepared(write_jsonl(tmp_path / "b.jsonl", new + old if front else old + new), split_ratio=ratio)
    before = {row.prompt: split for split, row in by_split(first)}
    after = {row.prompt: split for split, row in by_split(second)}
    assert set(before.values()) == {"train", "validation", "test"}
    assert before.items() <= after.items()


def by_split(made: Prepared) -> list[tuple[Split, Example]]:
    return [(split, row) for split in SPLITS for row in read_split(made.corpus, split)]


def test_one_group_never_lies_in_two_splits(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"patient": f"p{number % 20}"} for number, row in enumerate(questions(200))]
    made = prepared(write_jsonl(tmp_path / "r.jsonl", rows), columns={"group": "patient"}, split_ratio="0.5/0.25/0.25")
    homes: dict[str | None, set[str]] = {}
    for split, row in by_split(made):
        homes.setdefault(row.group, set()).add(split)
    assert len(homes) == 20
    assert {len(splits) for splits in homes.values()} == {1}
    assert all(made.result.splits.values())


def test_another_seed_draws_another_split(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", questions(100))
    first, second = (
        {row.id for split, row in by_split(prepared(source, seed=seed)) if split == "train"} for seed in (1, 2)
    )
    assert first != second


def dated(count: int) -> list[dict[str, str]]:
    rows = [row | {"day": (date(2024, 1, 1) + timedelta(days=n)).isoformat()} for n, row in enumerate(questions(count))]
    random.Random(5).shuffle(rows)
    return rows


def test_the_newest_rows_are_test_and_those_before_validation(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", dated(100))
    made = prepared(source, split_by_time="day", split_ratio="0.8/0.1/0.1")
    assert made.result.splits == {"train": 80, "validation": 10, "test": 10}
    placed = homes(made)
    assert {placed[f"What is number {n}?"] for n in range(90, 100)} == {"test"}
    assert {placed[f"What is number {n}?"] for n in range(80)} == {"train"}


def test_given_moments_move_no_old_row(prepared: Preparer, tmp_path: Path) -> None:
    rule = "day=2024-02-01/2024-03-01"
    few = homes(prepared(write_jsonl(tmp_path / "few.jsonl", dated(70)), split_by_time=rule))
    many = homes(prepared(write_jsonl(tmp_path / "many.jsonl", dated(120)), split_by_time=rule))
    assert few.items() <= many.items()
    assert Counter(few.values()) == {"train": 31, "validation": 29, "test": 10}


def test_the_timestamps_that_were_found_are_told_so_that_they_can_be_given(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", dated(100))
    found = prepared(source, split_by_time="day", split_ratio="0.8/0.1/0.1")
    rule = found.corpus.manifest["split_rule"]
    starts = rule.split("day=")[1].split(",")[0]
    assert homes(prepared(source, split_by_time=f"day={starts}")) == homes(found)


@pytest.mark.parametrize("rule", ["day=2024", "day=2024/2024-01-01", "day=2024-03-01/2024-02-01", "day=a/b"])
def test_timestamps_that_cannot_be_read_are_refused(rule: str, prepared: Preparer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COLUMN=VALIDATION_FROM/TEST_FROM"):
        prepared(write_jsonl(tmp_path / "rows.jsonl", dated(3)), split_by_time=rule)


@pytest.mark.parametrize(
    ("times", "rule"),
    [
        ([2020, 2021, 2022, 2023], "2022-12-31/2023-12-31"),
        ([date(2024, 1, day) for day in range(1, 5)], "2024-01-03/2024-01-04"),
        ([datetime(2024, 1, 1, hour) for hour in range(4)], "2024-01-01T02:00:00+00:00/2024-01-01T03:00:00+00:00"),
        ([1700000000000 + 86400000 * day for day in range(4)], "2023-11-16T22:13:20+00:00/2023-11-17T22:13:20+00:00"),
        (["2023-03-01", "2023-11-30", "2024-02-01", "2024"], "2024-02-01/2024-12-31"),  # 2024: perhaps in December
    ],
)
def test_times_of_any_kind_are_in_order_and_told(
    times: list[object], rule: str, prepared: Preparer, tmp_path: Path
) -> None:
    rows = [row | {"when": time} for row, time in zip(questions(4), times, strict=True)]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = prepared(tmp_path / "rows.parquet", split_by_time="when", split_ratio="0.5/0.25/0.25")
    assert homes(made) == dict(
        zip((row["question"] for row in rows), ["train", "train", "validation", "test"], strict=True)
    )
    assert f"when={rule}," in made.corpus.manifest["split_rule"]


def test_a_document_has_no_time(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", dated(10))
    (tmp_path / "in" / "mill.txt").write_text("The mill on the hill is old and grey.\n", "utf-8")
    with pytest.raises(RecordError, match=r"mill\.txt: a document has no column 'day'"):
        prepared(tmp_path / "in", split_by_time="day")
    assert prepared(tmp_path / "in", split_by_time="day", on_error="skip").result.dropped == {"no_time": 1}


def test_a_row_without_a_date_is_named(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*dated(3), {"question": "When?", "answer": "x", "day": "soon"}])
    with pytest.raises(RecordError, match=r"rows\.jsonl:4: the column 'day' does not contain a date"):
        prepared(source, split_by_time="day")


def test_rows_with_one_timestamp_cannot_be_split_by_time(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [row | {"day": "2024-01-01"} for row in questions(20)])
    with pytest.raises(InputError, match="the same timestamp"):
        prepared(source, split_by_time="day")


def test_a_group_in_the_named_test_split_leaves_train(prepared: Preparer, tmp_path: Path) -> None:
    train = [row | {"patient": f"p{n}"} for n, row in enumerate(questions(6))]
    test = [row | {"patient": "p1"} for row in questions(2, 100)]
    write_jsonl(tmp_path / "in" / "train.jsonl", train)
    write_jsonl(tmp_path / "in" / "test.jsonl", test)
    made = prepared(tmp_path / "in", columns={"group": "patient"})
    assert made.result.splits == {"train": 5, "validation": 0, "test": 2}
    assert made.result.dropped == {"group_in_test": 1}


def test_questions_about_one_text_share_a_split(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        {"context": f"Text {n // 5}. " + "It tells of many things that happened long ago. " * 5, **row}
        for n, row in enumerate(questions(200))
    ]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), split_ratio="0.5/0.25/0.25")
    assert sum(made.result.splits.values()) == 200  # a long text that they share makes no near-duplicates of them
    places: dict[str, set[str]] = {}
    for split in SPLITS:
        for row in read_split(made.corpus, split):
            places.setdefault(row.messages[0].content.split(".")[0], set()).add(split)
    assert len(places) == 40
    assert {len(splits) for splits in places.values()} == {1}
