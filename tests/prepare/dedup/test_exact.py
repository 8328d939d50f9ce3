"""Duplicates: exact after normalisation, never across a split that is measured on."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..conftest import Preparer, questions, write_jsonl


def tweets(*pairs: tuple[str, str]) -> list[dict[str, str]]:
    return [{"text": text, "label": label} for text, label in pairs]


def test_links_case_blanks_and_punctuation_do_not_make_a_text_new(prepared: Preparer, tmp_path: Path) -> None:
    rows = tweets(
        ("Shares of ACME fall https://t.co/abc", "down"),
        ("shares of acme  fall", "down"),
        ("Shares of ACME fall! www.example.com/x", "down"),
        ("Shares of ACME rise", "up"),
    )
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert [row.label for row in made.rows] == ["down", "up"]
    assert made.result.dropped == {"duplicate": 2}


# Texts that differ in a sign only: with two labels, both rows are kept.
APART = [
    ("ACME +5%", "ACME -5%"),
    ("ACME -5%", "ACME -5.5%"),
    ("ACME > 5", "ACME < 5"),
    ("ACME fell by 5%", "ACME fell by 5"),
    ("It costs $5", "It costs €5"),
    ("It opens at 10:30", "It opens at 10 30"),
    ("ok :)", "ok :("),
    ("ok:)", "ok:("),
    ("ok :-D", "ok"),
    ("I <3 it", "I </3 it"),
    ("The train was on time 😀", "The train was on time 😡"),
    ("C++ developer", "C# developer"),
    ("C developer", "C++ developer"),
    ("A* search", "A search"),
    ("★★★★★ spade", "★ spade"),
    ("You did it?", "You did it"),
    ("किला", "कला"),
    ("It was in March", "It was in march"),  # told apart by case, and therefore in one split
    ("Confirm at https://bank.example/a", "Confirm at https://intranet.example/b"),
]


@pytest.mark.parametrize(("left", "right"), APART)
def test_signs_tell_short_texts_apart(left: str, right: str, prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", tweets((left, "one"), (right, "two"))))
    assert {row.label for row in made.rows} == {"one", "two"}


# Copies of one text: with one label, one row is kept; with two, none.
COPIES = [
    ("The kettle is fine", "The kettle is fine"),
    ("The kettle is fine", "The kettle is fine!!!"),
    ("The kettle is fine.", "The *kettle is fine"),
    ("“The kettle” – fine…", '"The kettle", fine'),
    ("Fine #kettle @home", "Fine kettle home"),
    ("Is it fine??", "Is it fine?"),
    ("Fine ❤️ 👍🏽", "Fine ❤ 👍"),
]


@pytest.mark.parametrize(("left", "right"), COPIES)
def test_a_copy_is_a_duplicate_or_a_conflict(left: str, right: str, prepared: Preparer, tmp_path: Path) -> None:
    others = tweets(("A good spade", "one"), ("The lid broke", "two"))
    same = prepared(write_jsonl(tmp_path / "same.jsonl", [*tweets((left, "one"), (right, "one")), *others]))
    assert same.result.dropped == {"duplicate": 1}
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [*tweets((left, "one"), (right, "two")), *others]))
    assert made.result.dropped == {"conflicting_label": 2}
    assert {row.id[-1] for row in made.rows} == {"3", "4"}


def test_texts_of_links_only_are_kept_apart(prepared: Preparer, tmp_path: Path) -> None:
    rows = tweets(("https://t.co/a", "up"), ("https://t.co/b", "down"))
    assert len(prepared(write_jsonl(tmp_path / "train.jsonl", rows)).rows) == 2


def test_a_conflict_takes_all_copies_of_its_text(prepared: Preparer, tmp_path: Path) -> None:
    rows = tweets(("ACME falls", "down"), ("acme falls", "down"), ("ACME falls.", "up"), ("ACME rises", "up"))
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert [row.label for row in made.rows] == ["up"]
    assert made.result.dropped == {"conflicting_label": 3}


def test_test_rows_win_over_train_rows(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", tweets(("ACME falls http://x.y/1", "down"), ("ACME rises", "up")))
    dev = write_jsonl(
        tmp_path / "dev.jsonl", tweets(("ACME rises", "up"), ("ACME Falls", "down"), ("ACME idles", "up"))
    )
    test = write_jsonl(tmp_path / "test.jsonl", tweets(("ACME falls", "down"), ("ACME sinks", "down")))
    made = prepared(train, dev, test)
    assert made.result.splits == {"train": 0, "validation": 2, "test": 2}
    assert made.result.dropped == {"in_test": 2, "in_validation": 1}
    assert {drop["id"] for drop in made.drops} == {"train/train.jsonl:1", "train/train.jsonl:2", "dev/dev.jsonl:2"}


def test_a_question_of_the_test_split_leaves_train_whatever_its_answer(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(
        tmp_path / "train.jsonl", [{"question": "What is number 1?", "answer": "Another"}, *questions(3, 5)]
    )
    test = write_jsonl(tmp_path / "test.jsonl", questions(2))
    made = prepared(train, test)
    assert made.result.splits == {"train": 3, "validation": 0, "test": 2}
    assert made.result.dropped == {"in_test": 1}


def test_one_question_with_two_answers_is_two_rows(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"question": "Name a vitamin", "answer": "A"}, {"question": "Name a vitamin", "answer": "C"}]
    assert len(prepared(write_jsonl(tmp_path / "train.jsonl", rows)).rows) == 2


def test_conversations_that_begin_alike_are_kept(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(
        tmp_path / "train.jsonl", [{"prompt": "Write a poem", "completion": f"Poem {n}"} for n in range(5)]
    )
    test = write_jsonl(
        tmp_path / "test.jsonl", [{"prompt": "Write a poem", "completion": f"Poem {n}"} for n in range(4, 7)]
    )
    made = prepared(train, test)
    assert made.result.splits == {"train": 4, "validation": 0, "test": 3}
    assert made.result.dropped == {"in_test": 1}


def test_no_dedup_keeps_everything(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", questions(2) * 2)
    test = write_jsonl(tmp_path / "test.jsonl", questions(2))
    made = prepared(train, test, dedup=False)
    assert made.result.splits == {"train": 4, "validation": 0, "test": 2}
    assert made.result.dropped == {}


def test_rows_keep_their_order(prepared: Preparer, tmp_path: Path) -> None:
    rows = [*questions(3), *questions(6)]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    assert [row.answer for row in made.rows] == [f"It is {n}." for n in range(6)]
