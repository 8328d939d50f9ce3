"""Which rows are left out of a corpus: near-duplicates, rows of earlier corpora, rows that give away an eval set."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from finetune.errors import InputError
from finetune.records import Unused

from .conftest import Preparer, questions, write_jsonl

LONG = (
    "The board of the company said on Monday that it would cut its outlook for the year because orders from abroad had "
    "been weaker than expected and because the price of energy had risen again since the spring of last year"
)


def test_near_duplicates_keep_the_best_source_then_the_longest(prepared: Preparer, tmp_path: Path) -> None:
    first = write_jsonl(tmp_path / "first.jsonl", [{"text": LONG.replace("The board", "A board")}])
    second = write_jsonl(tmp_path / "second.jsonl", [{"text": LONG}, {"text": LONG + " indeed"}])
    made = prepared(first, second, split_ratio="1/0/0")
    assert [row.id for row in made.rows] == ["first/first.jsonl:1"]
    assert made.result.dropped == {"near_duplicate": 2}
    only = prepared(second, split_ratio="1/0/0")
    assert [row.id for row in only.rows] == ["second/second.jsonl:2"]


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


def test_files_of_an_eval_set_that_are_not_read_are_told(prepared: Preparer, tmp_path: Path) -> None:
    evals = write_jsonl(
        tmp_path / "bench" / "items.jsonl", [{"question": "Which river is the widest?", "answer": "This."}]
    )
    (evals.parent / "items.sav").write_bytes(b"items")
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", questions(5)), decontaminate=(str(evals.parent),))
    assert made.result.unused == [Unused("eval set bench", "file", "items.sav", 1)]


def test_scrubbing_does_not_hide_an_eval_set(prepared: Preparer, tmp_path: Path) -> None:
    asked = "Write a polite reply to jane.doe@example.com and tell her when the parcel will come to town"
    evals = write_jsonl(tmp_path / "bench.jsonl", [{"question": asked, "answer": "Dear Jane"}])
    source = write_jsonl(tmp_path / "rows.jsonl", [*questions(3), {"question": asked, "answer": "Soon it will come."}])
    assert prepared(source, decontaminate=(str(evals),)).result.dropped == {"eval_question": 1}
