"""Shares of the splits: what a name says, what a ratio says, and what is left beside named splits."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from finetune.errors import ConfigError, InputError
from finetune.prepare import PrepareRequest
from finetune.prepare.sources.source import open_sources
from finetune.prepare.splits.shares import named_split, parse_ratio, shares_left
from finetune.records import Split

from ..conftest import Preparer, questions, write_jsonl


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


@pytest.mark.parametrize("name", ["train/test.jsonl", "validation/train-00000-of-00001.parquet"])
def test_a_path_with_two_splits_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="names two splits"):
        named_split(name)


# The files of a folder, or several sources ("|"), and the split that each file keeps.
NAMES: list[tuple[str, list[Split | None]]] = [
    # an only split is no split
    ("train.jsonl", [None]),
    ("test.jsonl", [None]),
    ("my_test.jsonl", [None]),
    ("dev/part-0.jsonl, dev/part-1.jsonl", [None, None]),
    ("train-0.jsonl, train-1.jsonl", [None, None]),
    ("train.jsonl | test.jsonl", ["train", "test"]),
    ("data/train/a.jsonl | data/test/a.jsonl", ["train", "test"]),
    ("data/test/a.jsonl | b.jsonl", ["test", None]),
    # beside rows without a split, a name that also says something else names none
    ("crash_test.jsonl, notes.jsonl", [None, None]),
    ("notes.jsonl, test.jsonl", [None, "test"]),
    ("news.jsonl, news_test.jsonl", [None, "test"]),
    ("news_test.jsonl, news_train.jsonl, notes.jsonl", ["test", "train", None]),
    ("test.jsonl, train-val.jsonl", ["test", None]),
    ("my_test.jsonl, train.jsonl", ["test", "train"]),
    # a name with blanks is a title, unless another file has the same with another split
    ("Evaluation of offers.jsonl, Training of staff.jsonl", [None, None]),
    ("test data.jsonl, train data.jsonl", ["test", "train"]),
    # documents have titles: only their folders count, and only beside a folder for train
    ("Boilers.md, Dev setup.md, Testing the valves.md", [None, None, None]),
    ("Training before the test.md, test.md, train.md", [None, None, None]),
    ("dev/Setup.md, install/Boilers.md, testing/Valves.md", [None, None, None]),
    ("test/Boilers.md, train/Valves.md", ["test", "train"]),
    ("train/Valves.md | test/Boilers.md", ["train", "test"]),
    ("Test.md, test.jsonl, train.jsonl", [None, "test", "train"]),
]


@pytest.mark.parametrize(("names", "splits"), NAMES)
def test_names_count_where_they_tell_splits_apart(names: str, splits: list[Split | None], tmp_path: Path) -> None:
    paths = [tmp_path / name for name in re.split(r", | \| ", names)]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    sources = (str(tmp_path),) if "," in names else tuple(map(str, paths))
    opened = open_sources(PrepareRequest(tmp_path / "out", sources=sources), None)
    assert [file.split for source in opened for file in source.files] == splits


def test_an_only_split_is_divided_whatever_it_is_called(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "my_test.jsonl", questions(200))
    assert min(prepared(source).result.splits.values()) > 0
    assert prepared(source, split_ratio="0/0/1").result.splits == {"train": 0, "validation": 0, "test": 200}


def test_held_out_files_alone_are_refused_unless_shares_are_given(prepared: Preparer, tmp_path: Path) -> None:
    for number, name in enumerate(["dev.jsonl", "test.jsonl"]):
        write_jsonl(tmp_path / "in" / name, questions(5, 10 * number))
    with pytest.raises(InputError, match=r"All files name a held-out split \(.*dev\.jsonl, .*test\.jsonl\)"):
        prepared(tmp_path / "in")
    splits = prepared(tmp_path / "in", split_ratio="0/0.5/0.5").result.splits
    assert splits == {"train": 0, "validation": 5, "test": 5}


def test_an_empty_train_split_is_told(prepared: Preparer, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    write_jsonl(tmp_path / "in" / "train.jsonl", questions(2))
    write_jsonl(tmp_path / "in" / "test.jsonl", questions(3))
    assert prepared(tmp_path / "in").result.splits["train"] == 0
    assert "The train split is empty" in caplog.text


@pytest.mark.parametrize(
    "ratio", ["", "1", "0.5/0.5", "0.9/0.2/0.1", "a/b/c", "-0.1/0.6/0.5", "nan/0.5/0.5", "0.8/0.1/0.05/0.05", "90/5/5"]
)
def test_bad_ratio_is_refused_with_an_example(ratio: str, prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "r.jsonl", questions(1))
    if not ratio:
        ratio = "/"
    with pytest.raises(ConfigError, match=r"--split-ratio .* such as 0\.9/0\.05/0\.05"):
        prepared(source, split_ratio=ratio)


def test_shares_of_named_splits_go_to_the_rest() -> None:
    left = shares_left(parse_ratio("0.9/0.05/0.05"), {"test"}, "rows")
    assert left == {"train": pytest.approx(0.9 / 0.95), "validation": pytest.approx(0.05 / 0.95)}


def test_no_share_left_is_an_error(prepared: Preparer, tmp_path: Path) -> None:
    write_jsonl(tmp_path / "in" / "rows.jsonl", questions(5))
    write_jsonl(tmp_path / "in" / "test.jsonl", questions(5, 10))
    with pytest.raises(InputError, match="Give train a share above 0"):
        prepared(tmp_path / "in", split_ratio="0/0/1")


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
    both = prepared(train, test, split_ratio="0.8/0.2/0").result.splits
    assert both["test"] == 5
    assert both["validation"] > 10
