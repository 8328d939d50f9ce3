"""The shapes that rows come in, as pairs of a row and what becomes of it, and the rows that fit none."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import RecordError

from ..conftest import Preparer, questions, write_jsonl

GOLDEN = sorted((Path(__file__).parent / "golden").glob("*.json"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.stem)
def test_row_becomes_what_the_golden_file_says(file: Path, prepared: Preparer, tmp_path: Path) -> None:
    golden = json.loads(file.read_text("utf-8"))
    source = write_jsonl(tmp_path / "rows.jsonl", [golden["row"]])
    made = prepared(source, columns=golden.get("map", {}), ignored=tuple(golden.get("ignore", ())))
    (row,) = made.rows
    found: dict[str, Any] = {"task": row.task, "messages": [[turn.role, turn.text] for turn in row.messages]}
    if row.label is not None:
        found["label"] = row.label
    if row.choices:
        found["choices"] = list(row.choices)
    if row.context is not None:
        found["context"] = row.context
    if row.rejected:
        found["rejected"] = [[turn.role, turn.text] for turn in row.rejected]
    if row.tools is not None:
        found["tools"] = json.loads(row.tools)
    assert found == golden["becomes"]
    assert [[each.kind, each.name] for each in made.result.unused] == golden.get("unused", [])


def test_rows_that_fit_a_task_of_the_domain_get_its_prompt(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": "Profit doubled.", "label": "Bullish"}, {"text": "Sales sank.", "label": "bearish"}]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), domain="finance").rows
    sample = prepared(domain="finance", sample=True, limit=1).rows
    sentiment = next(row for row in sample if row.task == "classification")
    assert {row.choices for row in made} == {("bearish", "neutral", "bullish")}
    assert [row.label for row in made] == ["bullish", "bearish"]
    assert [turn.role for turn in made[0].messages] == [turn.role for turn in sentiment.messages]


def test_labels_that_are_not_the_domains_choices_stay_as_they_are(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"text": "Profit doubled.", "label": "positive"}, {"text": "Sales sank.", "label": "negative"}]
    made = prepared(write_jsonl(tmp_path / "train.jsonl", rows), domain="finance").rows
    assert {row.choices for row in made} == {("negative", "positive")}


def test_a_domain_prompt_that_would_not_read_the_context_is_not_used(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"context": "Rates rose.", "question": "What rose?", "answer": "Rates."}]
    (row,) = prepared(write_jsonl(tmp_path / "train.jsonl", rows), domain="finance").rows
    assert "Rates rose." in "\n".join(message.content for message in row.prompt)


def test_rows_with_context_and_label_fit_the_evidence_task(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"context": "Tea was hot.", "question": "Was it hot?", "label": "yes"}]
    (row,) = prepared(write_jsonl(tmp_path / "train.jsonl", rows), domain="health").rows
    assert (row.task, row.label, row.choices) == ("classification", "yes", ("yes", "no", "maybe"))


def test_group_column_reaches_the_corpus(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"patient": number} for number, row in enumerate(questions(3))]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), columns={"group": "patient"}).rows
    assert {row.group for row in made} == {"0", "1", "2"}


# --- rows that name their split ---------------------------------------------------------------------------------------


def write_split_rows(path: Path, splits: Sequence[object]) -> Path:
    rows = [row | {"split": split} for row, split in zip(questions(len(splits)), splits, strict=True)]
    return write_jsonl(path, rows)


def test_split_column_names_the_split_of_each_row(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_split_rows(tmp_path / "rows.jsonl", ["train", "Train", "dev", "test", "test"]))
    assert made.result.splits == {"train": 2, "validation": 1, "test": 2}
    assert made.result.unused == []


def test_split_column_of_another_name_is_mapped(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"part": part} for row, part in zip(questions(3), ["train", "train", "eval"], strict=True)]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), columns={"split": "part"})
    assert made.result.splits == {"train": 2, "validation": 0, "test": 1}


def test_split_column_that_names_one_split_only_names_none(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_split_rows(tmp_path / "rows.jsonl", ["train"] * 40), split_ratio="0.5/0.25/0.25")
    assert min(made.result.splits.values()) > 0
    assert min(prepared(write_split_rows(tmp_path / "rows.jsonl", ["test"] * 200)).result.splits.values()) > 0


def test_rows_without_a_split_are_divided_among_the_splits_that_no_row_names(
    prepared: Preparer, tmp_path: Path
) -> None:
    made = prepared(write_split_rows(tmp_path / "rows.jsonl", ["test", *[None] * 40]), split_ratio="0.5/0.25/0.25")
    assert made.result.splits["test"] == 1
    assert made.result.splits["validation"] > 0


@pytest.mark.parametrize("options", [{"ignored": ("split",)}, {}])
def test_split_column_of_other_values_is_not_used(options: dict[str, Any], prepared: Preparer, tmp_path: Path) -> None:
    values = ["train", "test", "dev"] if options else ["2023", "2024", "train"]
    made = prepared(write_split_rows(tmp_path / "rows.jsonl", values), split_ratio="1/0/0", **options)
    assert made.result.splits["train"] == 3
    assert [each.name for each in made.result.unused] == ["split"]


def test_row_that_names_no_split_among_others_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    source = write_split_rows(tmp_path / "rows.jsonl", ["train", "test"] * 500 + ["later"])
    with pytest.raises(RecordError, match=r"rows\.jsonl:1001: the column 'split' names no split here"):
        prepared(source)


# --- rows that fit no shape -------------------------------------------------------------------------------------------

UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "empty answer": ({"question": "Q?", "answer": "  "}, "'answer' is empty"),
    "null answer": ({"question": "Q?", "answer": None}, "'answer' is null"),
    "NaN answer": ({"question": "Q?", "answer": float("nan")}, "'answer' is null"),
    "empty question": ({"question": "", "answer": "A"}, "'question' is empty"),
    "nested text": ({"question": {"en": "Q?"}, "answer": "A"}, "--map question=question.en"),
    "half a surrogate pair": ({"question": "Q\ud800?", "answer": "A"}, "surrogate"),
    "no turns": ({"messages": []}, "empty"),
    "turns that are no list": ({"messages": "hello"}, "not a list of turns"),
    "turn that is no object": ({"messages": ["hello"]}, "turn 1"),
    "unknown role": ({"messages": [{"role": "robot", "content": "x"}]}, "Known: system, user, assistant"),
    "empty turn": ({"messages": [{"role": "user", "content": ""}]}, "turn 1"),
    "no last answer": ({"messages": [{"role": "user", "content": "x"}]}, "must alternate between user and assistant"),
    "answer without question": (
        {"messages": [{"role": "assistant", "content": "x"}]},
        "must alternate between user and assistant",
    ),
    "ShareGPT with unknown speaker": ({"conversations": [{"from": "bing", "value": "x"}]}, "unknown 'from'"),
    "empty completion": ({"prompt": "P", "completion": ""}, "'completion' is empty"),
    "null output": ({"instruction": "I", "output": None}, "'output' is null"),
    "empty text": ({"text": "\u0000 "}, "'text' is empty"),
}


@pytest.mark.parametrize(("row", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_row_is_refused_with_its_line(
    row: dict[str, Any], says: str, prepared: Preparer, tmp_path: Path
) -> None:
    source = tmp_path / "rows.jsonl"
    source.write_text("\n" + json.dumps(row) + "\n", "utf-8")
    with pytest.raises(RecordError) as error:
        prepared(source)
    assert f"{source}:2: " in str(error.value)
    assert says in str(error.value)
    assert not (tmp_path / "corpus-1").exists()


@pytest.mark.parametrize(("row", "says"), UNUSABLE.values(), ids=UNUSABLE)
def test_unusable_row_can_be_skipped_and_is_listed(
    row: dict[str, Any], says: str, prepared: Preparer, tmp_path: Path
) -> None:
    good = {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]}
    shapes: list[dict[str, Any]] = [
        good,
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"prompt": "a", "completion": "b"},
        {"instruction": "a", "output": "b"},
        *questions(1),
        {"text": "a"},
    ]
    like = next(shape for shape in shapes if set(shape) == set(row))
    source = tmp_path / "rows.jsonl"
    source.write_text(json.dumps(like) + "\n" + json.dumps(row) + "\n", "utf-8")
    made = prepared(source, on_error="skip", quality=False)
    assert len(made.rows) == 1
    (drop,) = made.drops
    assert drop["id"] == "rows/rows.jsonl:2"
    assert made.result.dropped == {drop["reason"]: 1}


def test_unknown_columns_name_the_nearest_shape_and_the_flags(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"sentence": "x", "sentiment": "good"}])
    with pytest.raises(
        RecordError, match=r"columns sentence, sentiment fit .*--map text=sentence --map label=sentiment"
    ):
        prepared(source)


def test_a_missing_mapped_column_lists_what_is_there(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", questions(1))
    with pytest.raises(RecordError, match=r"no column 'reply'. Columns found: question, answer"):
        prepared(source, columns={"answer": "reply"})


def test_row_without_a_column_of_its_file_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [*questions(2), {"question": "Q?"}])
    with pytest.raises(RecordError, match=r"rows.jsonl:3: there is no column 'answer'"):
        prepared(source)


def test_messages_never_repeat_the_text_of_a_row(prepared: Preparer, tmp_path: Path) -> None:
    source = tmp_path / "rows.csv"
    source.write_text("My secret diagnosis is written here,and here\nx,y\n", "utf-8")
    with pytest.raises(RecordError) as error:
        prepared(source)
    assert "written here" not in str(error.value)
