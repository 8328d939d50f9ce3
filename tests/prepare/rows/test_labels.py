"""The labels of labelled texts, which are the choices of the questions about them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from finetune.errors import InputError, RecordError

from ..conftest import Preparer, questions, write_jsonl

PAIR = [{"text": "A sharp saw", "label": "good"}, {"text": "A blunt adze", "label": "bad"}]


def test_text_and_label_become_a_classification_of_the_distinct_labels(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": "Loved it", "label": "good"}, {"text": "Hated it", "label": "bad"}]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), instruction="Was the customer happy?").rows
    assert [row.choices for row in made] == [("bad", "good")] * 2
    assert [(row.label, row.answer) for row in made] == [("good", "good"), ("bad", "bad")]
    assert "Was the customer happy?" in made[0].messages[0].content


def test_train_and_test_files_share_their_choices(prepared: Preparer, tmp_path: Path) -> None:
    train = write_jsonl(tmp_path / "train.jsonl", [{"text": f"t{n}", "label": label} for n, label in enumerate("abc")])
    test = write_jsonl(tmp_path / "test.jsonl", [{"text": "u", "label": "a"}])
    assert {row.choices for row in prepared(train, test).rows} == {("a", "b", "c")}


def test_sources_without_a_common_label_keep_their_own_choices(prepared: Preparer, tmp_path: Path) -> None:
    tone = write_jsonl(tmp_path / "tone.jsonl", [{"text": "x", "label": "good"}, {"text": "y", "label": "bad"}])
    topic = write_jsonl(tmp_path / "topic.jsonl", [{"text": "p", "label": "law"}, {"text": "q", "label": "art"}])
    assert {row.choices for row in prepared(tone, topic).rows} == {("bad", "good"), ("art", "law")}


def test_numeric_labels_are_written_without_a_fraction(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "train.jsonl", [{"text": "x", "label": 0.0}, {"text": "y", "label": 1}])
    assert [row.label for row in prepared(source).rows] == ["0", "1"]


def test_an_only_label_is_no_classification(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": "x", "label": "a"}, {"text": "y", "label": "a"}])
    with pytest.raises(InputError, match="1 distinct values; classification needs 2 to 100"):
        prepared(source)


def test_free_text_in_the_label_column_is_no_classification(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"x{n}", "label": f"a{n}"} for n in range(101)])
    with pytest.raises(InputError, match="--map question=text --map answer=label"):
        prepared(source)


def test_instruction_without_labelled_rows_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="--instruction"):
        prepared(write_jsonl(tmp_path / "rows.jsonl", questions(3)), instruction="Good or bad?")


@pytest.mark.parametrize(
    "bad_row",
    [
        {"text": "", "label": "garbage"},
        {"text": "A rusty nail", "label": "garbage", "weight": 0},
        {"text": "1234 / 5678", "label": "garbage"},  # dropped by the filters
    ],
)
def test_label_of_unusable_rows_is_no_choice(bad_row: dict[str, Any], prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [bad_row, *PAIR]), on_error="skip")
    assert {row.choices for row in made.rows} == {("bad", "good")}


def test_labels_that_differ_in_case_only_are_one_class(prepared: Preparer, tmp_path: Path) -> None:
    labels = ["Good", "good", " good", "BAD", "BAD", "bad"]
    rows = [{"text": f"The tool of drawer {n} is here", "label": label} for n, label in enumerate(labels)]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), dedup=False)
    assert {row.choices for row in made.rows} == {("BAD", "good")}
    assert sorted(str(row.label) for row in made.rows) == ["BAD"] * 3 + ["good"] * 3


@pytest.mark.parametrize("names", [("pos.jsonl", "neg.jsonl"), ("train.jsonl", "test.jsonl")])
def test_files_of_one_class_each_share_their_choices(
    names: tuple[str, str], prepared: Preparer, tmp_path: Path
) -> None:
    for name, row in zip(names, PAIR, strict=True):
        write_jsonl(tmp_path / "in" / name, [row])
    assert {row.choices for row in prepared(tmp_path / "in").rows} == {("bad", "good")}


def test_class_number_without_a_name_is_no_label(prepared: Preparer, tmp_path: Path) -> None:
    import datasets

    names = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["bad", "good"])})
    (tmp_path / "in").mkdir()
    for split, labels in (("train", [0, 1, -1]), ("test", [-1, -1])):
        rows = {"text": [f"The tool of drawer {n} in {split}" for n, _ in enumerate(labels)], "label": labels}
        datasets.Dataset.from_dict(rows, features=names).to_parquet(tmp_path / "in" / f"{split}.parquet")
    made = prepared(tmp_path / "in", on_error="skip", dedup=False)
    assert made.result.dropped == {"no_label": 3}
    assert {(row.label, row.choices) for row in made.rows} == {("bad", ("bad", "good")), ("good", ("bad", "good"))}


def test_number_of_labels_in_a_message_is_the_true_one(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"text": f"Tool {n} of many", "label": f"a{n}"} for n in range(151)])
    with pytest.raises(InputError, match="151 distinct values"):
        prepared(source)


def test_file_without_classes_can_be_skipped(prepared: Preparer, tmp_path: Path) -> None:
    one = write_jsonl(tmp_path / "one.jsonl", [{"text": f"Tool {n} of many", "label": f"a{n}"} for n in range(101)])
    two = write_jsonl(tmp_path / "two.jsonl", PAIR)
    made = prepared(one, two, on_error="skip")
    assert (len(made.rows), made.result.dropped) == (2, {"no_classes": 1})


def test_lists_of_one_label_are_single_labels(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"label": [row["label"]]} for row in PAIR]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).rows
    assert [(row.label, row.labels) for row in made] == [("good", None), ("bad", None)]


def test_no_label_among_single_labels_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"label": [row["label"]]} for row in PAIR] + [{"text": "A saw of silver", "label": []}]
    with pytest.raises(RecordError, match=r"rows\.jsonl:3: the column 'label' is empty"):
        prepared(write_jsonl(tmp_path / "rows.jsonl", rows))


def test_label_in_an_object_names_its_fields(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"label": {"name": row["label"], "id": 3}} for row in PAIR]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    with pytest.raises(RecordError, match=r"--map label=label\.name"):
        prepared(source)
    made = prepared(source, columns={"label": "label.name"})
    assert [row.label for row in made.rows] == ["good", "bad"]
    assert [each.name for each in made.result.unused] == ["label.id"]


def test_numbers_among_labels_that_are_texts_are_refused(prepared: Preparer, tmp_path: Path) -> None:
    with pytest.raises(
        RecordError, match=r"rows\.jsonl:4: the column 'label' is a number here and a text in other rows"
    ):
        prepared(write_jsonl(tmp_path / "rows.jsonl", [*PAIR, PAIR[0] | {"text": "A"}, {"text": "B", "label": 3}]))


def test_labels_with_commas_are_listed_with_semicolons(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": "A sharp saw", "label": "wood, metal"}, {"text": "A wool sock", "label": "wool"}]
    (row, _) = prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).rows
    assert row.messages[0].content.endswith("Answer with one of: wood, metal; wool.")
