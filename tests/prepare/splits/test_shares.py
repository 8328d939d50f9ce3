"""Splits: named ones are kept, others follow from a row's own content, so that no row ever moves."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from finetune.corpus.store import read_split
from finetune.errors import ConfigError, InputError
from finetune.prepare.splits.assign import split_of
from finetune.prepare.splits.shares import named_split, parse_ratio, shares_left
from finetune.records import SPLITS, Example, Split

from ..conftest import Prepared, Preparer, questions, write_jsonl


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train.jsonl", "train"),
        ("news-train.jsonl", "train"),
        ("train_v2.csv", "train"),
        ("data/train-00000-of-00004.parquet", "train"),
        ("training/part-3.csv", "train"),
        ("valid.json", "validation"),
        ("val.csv", "validation"),
        ("dev-0001.jsonl", "validation"),
        ("Validation/rows.csv", "validation"),
        ("questions_test.tsv", "test"),
        ("test/test.jsonl", "test"),
        ("eval.jsonl", "test"),
        ("reviews.csv", None),
        ("contest.csv", None),
        ("my-test-results.csv", None),
        ("trainer.csv", None),
    ],
)
def test_names_tell_the_split(name: str, split: Split | None) -> None:
    assert named_split(name) == split


@pytest.mark.parametrize("name", ["train/test.jsonl", "train-test.csv", "validation/train-00000-of-00001.parquet"])
def test_a_name_with_two_splits_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names two splits"):
        named_split(name)


@pytest.mark.parametrize(
    "ratio", ["", "1", "0.5/0.5", "0.9/0.2/0.1", "a/b/c", "-0.1/0.6/0.5", "nan/0.5/0.5", "0.8/0.1/0.05/0.05", "90/5/5"]
)
def test_bad_ratio_is_refused_with_an_example(ratio: str, prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", questions(1))
    if not ratio:
        ratio = "/"
    with pytest.raises(ConfigError, match=r"--split-ratio .* such as 0\.9/0\.05/0\.05"):
        prepared(source, split_ratio=ratio)


def test_draws_follow_the_shares() -> None:
    shares = parse_ratio("0.8/0.15/0.05")
    draws = np.random.default_rng(42).integers(0, 2**64, 20_000, np.uint64)
    placed = split_of(draws, shares)
    for split, share in shares.items():
        assert (placed == SPLITS.index(split)).mean() == pytest.approx(share, abs=0.01)


@given(st.sampled_from(["train", "validation", "test"]), st.integers(0, 2**64 - 1))
def test_a_share_of_one_takes_every_row(split: Split, draw: int) -> None:
    assert split_of(np.array([draw], np.uint64), {split: 1.0}).tolist() == [SPLITS.index(split)]


def test_shares_of_named_splits_go_to_the_rest() -> None:
    left = shares_left(parse_ratio("0.9/0.05/0.05"), {"test"}, "rows")
    assert left == {"train": pytest.approx(0.9 / 0.95), "validation": pytest.approx(0.05 / 0.95)}


def test_no_share_left_is_an_error(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(5))
    write_jsonl(tmp_path / "in" / "test.jsonl", questions(5, 10))
    with pytest.raises(InputError, match="Give train a share above 0"):
        prepared(tmp_path / "in", split_ratio="0/0/1")


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


def test_named_files_keep_their_split(prepared: Preparer, tmp_path: Path) -> None:
    for number, name in enumerate(["news-train.jsonl", "valid.jsonl", "test/part.jsonl"]):
        write_jsonl(tmp_path / "in" / name, questions(10, 100 * number))
    assert prepared(tmp_path / "in").result.splits == {"train": 10, "validation": 10, "test": 10}


def test_unnamed_rows_beside_named_ones_never_join_the_named_test(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(200))
    write_jsonl(tmp_path / "in" / "test.jsonl", questions(10, 1000))
    splits = prepared(tmp_path / "in").result.splits
    assert splits["test"] == 10
    assert splits["validation"] > 0
    assert sum(splits.values()) == 210


def test_a_ratio_opens_the_named_train_split(prepared: Preparer, tmp_path: Path) -> None:
    train, test = (
        write_jsonl(tmp_path / "train.jsonl", questions(200)),
        write_jsonl(tmp_path / "test.jsonl", questions(5, 900)),
    )
    splits = prepared(train, split_ratio="0.8/0.1/0.1").result.splits
    assert min(splits.values()) > 5
    assert prepared(train).result.splits == {"train": 200, "validation": 0, "test": 0}
    both = prepared(train, test, split_ratio="0.8/0.2/0").result.splits
    assert both["test"] == 5
    assert both["validation"] > 10
