"""Where rows go when the source does not say: by group, by label in exact shares, by time; and never twice."""

from __future__ import annotations

import json
import random
from collections import Counter
from datetime import date, timedelta
from pathlib import Path

import pytest

from finetune.corpus.store import read_split
from finetune.errors import ConfigError, InputError, RecordError
from finetune.records import SPLITS, Split

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
    assert "No question and no group lies in two splits" in made.result.disjoint


def test_draws_by_hash_give_each_label_about_its_share(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", reviews(3000)), split_ratio="0.8/0.1/0.1", near_duplicates=1.0)
    shares: dict[Split, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
    for split, share in shares.items():
        labels = Counter(row.label for row in read_split(made.corpus, split))
        assert labels["bad"] / 600 == pytest.approx(share, abs=0.04)
        assert labels["good"] / 2400 == pytest.approx(share, abs=0.03)


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


@pytest.mark.parametrize("rule", ["day=2024", "day=2024-03-01/2024-02-01", "day=a/b"])
def test_timestamps_that_cannot_be_read_are_refused(rule: str, prepared: Preparer, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="COLUMN=VALIDATION_FROM/TEST_FROM"):
        prepared(write_jsonl(tmp_path / "rows.jsonl", dated(3)), split_by_time=rule)


def test_a_row_without_a_date_is_named(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*dated(3), {"question": "When?", "answer": "x", "day": "soon"}])
    with pytest.raises(RecordError, match=r"rows\.jsonl:4: the column 'day' holds no date"):
        prepared(source, split_by_time="day")


def test_rows_with_one_timestamp_cannot_be_split_by_time(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [row | {"day": "2024-01-01"} for row in questions(20)])
    with pytest.raises(InputError, match="of one moment"):
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


# --- near-duplicates and earlier corpora ------------------------------------------------------------------------------

LONG = (
    "The board of the company said on Monday that it would cut its outlook for the year because orders from abroad had "
    "been weaker than expected and because the price of energy had risen again since the spring of last year"
)


def test_near_duplicates_keep_the_best_source_then_the_longest(prepared: Preparer, tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "first-train.jsonl", [{"text": LONG.replace("The board", "A board")}])
    second = write_jsonl(tmp_path / "second-train.jsonl", [{"text": LONG}, {"text": LONG + " indeed"}])
    made = prepared(first, second)
    assert [row.id for row in made.rows] == ["first-train/first-train.jsonl:1"]
    assert made.result.dropped == {"near_duplicate": 2}
    only = prepared(second)
    assert [row.id for row in only.rows] == ["second-train/second-train.jsonl:2"]


def test_clusters_name_the_kept_row_and_those_that_repeat_it(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": LONG}, {"text": "Something else altogether happened in the town that day, nobody knows why."}]
    rows.append({"text": LONG.replace("The board", "A board")})
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows))
    (cluster,) = map(json.loads, (made.corpus.path / "clusters.jsonl").read_text("utf-8").splitlines())
    assert (cluster["kept"], cluster["dropped"]) == ("train/train.jsonl:1", ["train/train.jsonl:3"])
    assert 0.8 <= cluster["similarity"][0] < 1
    assert made.result.clusters == 1


def test_a_near_duplicate_of_a_test_row_leaves_train(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": LONG + " as always"}, *({"text": t} for t in plain(5))])
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": LONG}])
    assert prepared(train, test).result.dropped == {"near_test": 1}


def test_only_equal_rows_are_dropped_at_similarity_one(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", [{"text": LONG}, {"text": LONG + " now"}, {"text": LONG.upper()}])
    assert prepared(source, near_duplicates=1.0).result.dropped == {"duplicate": 1}


def plain(count: int) -> list[str]:
    return [f"Sentence {n} says that {n * 7} people and {n * 3} dogs walked to town number {n}." for n in range(count)]


def test_rows_of_an_earlier_corpus_are_not_taken_again(prepared: Preparer, tmp_path: Path) -> None:
    earlier = prepared(write_jsonl(tmp_path / "old.jsonl", [{"text": LONG}, *({"text": t} for t in plain(10))]))
    rows = [{"text": LONG.replace("The board", "A board")}, *({"text": t} for t in plain(13))]
    made = prepared(write_jsonl(tmp_path / "new.jsonl", rows), against=(earlier.corpus.path,))
    assert made.result.dropped == {"in_earlier_corpus": 10, "near_earlier_corpus": 1}
    assert sorted(row.answer for row in made.rows) == sorted(plain(13)[10:])
    assert made.corpus.manifest["parents"] == {"earlier-1": earlier.corpus.fingerprint}
    assert [source.id for source in made.result.sources] == ["new"]
    assert made.result.sources[0].read == 14


def test_an_earlier_corpus_that_is_none_is_named(prepared: Preparer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no corpus at"):
        prepared(write_jsonl(tmp_path / "new.jsonl", questions(3)), against=(tmp_path / "gone",))


# --- eval sets --------------------------------------------------------------------------------------------------------


def test_rows_that_give_away_an_eval_set_are_left_out_and_listed(prepared: Preparer, tmp_path: Path) -> None:
    asked = "hich of the two rivers that meet below the old town carries more water in spring?"
    evals = write_jsonl(tmp_path / "bench.jsonl", [{"question": f"W{asked}", "answer": "The Inn"}])
    leak = {"question": f"A reader asks: w{asked} Please explain it.", "answer": "It is the smaller one."}
    rows = [*questions(5), leak]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    made = prepared(source, decontaminate=(str(evals),))
    assert made.result.dropped == {"eval_question": 1}
    assert made.result.contaminated == 1
    assert made.result.evals == ["bench"]
    (hit,) = map(json.loads, (made.corpus.path / "contamination.jsonl").read_text("utf-8").splitlines())
    assert hit["row"] == "rows/rows.jsonl:6"
    assert hit["eval_set"] == "bench"
    assert prepared(source).result.evals == []


def test_a_missing_eval_set_is_an_error(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(5))
    with pytest.raises(InputError, match=r"no file or folder .*gone\.jsonl"):
        prepared(source, decontaminate=(str(tmp_path / "gone.jsonl"),))


def test_scrubbing_does_not_hide_an_eval_set(prepared: Preparer, tmp_path: Path) -> None:
    asked = "Write a polite reply to jane.doe@example.com and tell her when the parcel will come to town"
    evals = write_jsonl(tmp_path / "bench.jsonl", [{"question": asked, "answer": "Dear Jane"}])
    source = write_jsonl(tmp_path / "rows.jsonl", [*questions(3), {"question": asked, "answer": "Soon it will come."}])
    assert prepared(source, decontaminate=(str(evals),)).result.dropped == {"eval_question": 1}
