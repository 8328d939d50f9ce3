"""What a row has and its format does not read: it comes out in the corpus, is told by name, or stops the run."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest

from finetune.errors import RecordError

from ..conftest import Preparer, questions, write_jsonl

TURNS = [{"role": "user", "content": "Name a tool."}, {"role": "assistant", "content": "An adze for wood."}]
SHAREGPT = [{"from": "human", "value": "Name a tool."}, {"from": "gpt", "value": "An adze for wood."}]
CALL = {"id": "c1", "type": "function", "function": {"name": "shop", "arguments": {"item": "adze"}}}
FUNCTION = {"name": "shop", "description": "Sells tools.", "parameters": {"type": "object", "properties": {"item": {}}}}
CALLING = {"role": "assistant", "content": None, "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "9 shillings"}
BLOCKS = [
    {"type": "text", "text": "Let me see."},
    {"type": "tool_use", "id": "t1", "name": "shop", "input": {"item": "adze"}},
]
RETURNED = [{"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "9 shillings"}]}]
FORMATS: dict[str, dict[str, Any]] = {
    "messages": {"messages": TURNS},
    "tool calls": {
        "messages": [TURNS[0], CALLING, RESULT, TURNS[1]],
        "tools": [{"type": "function", "function": FUNCTION}],
    },
    "tool blocks": {
        "messages": [
            TURNS[0],
            {"role": "assistant", "content": BLOCKS},
            {"role": "user", "content": RETURNED},
            TURNS[1],
        ],
        "tools": [{"name": "shop", "input_schema": {"type": "object"}}],
    },
    "preference": {"prompt": "Name a tool.", "chosen": "An adze.", "rejected": "A pear."},
    "preference of messages": {
        "prompt": TURNS[:1],
        "chosen": TURNS[1:],
        "rejected": [{"role": "assistant", "content": "A pear."}],
    },
    "preference of conversations": {
        "chosen": TURNS,
        "rejected": [TURNS[0], {"role": "assistant", "content": "A pear."}],
    },
    "preference beside messages": {"messages": TURNS, "rejected_response": "A pear."},
    "ratings": {"prompt": "Name a tool.", "completion": "A pear.", "label": False},
    "sharegpt": {"conversations": SHAREGPT},
    "prompt-completion": {"prompt": "Name a tool.", "completion": "An adze for wood."},
    "prompt-completion of messages": {"prompt": TURNS[:1], "completion": TURNS[1:]},
    "alpaca": {"instruction": "Name a tool.", "input": "For wood.", "output": "An adze."},
    "question-answer": {"context": "Wood.", "question": "Name a tool.", "answer": "An adze for wood."},
    "multiple choice": {"question": "Name a tool.", "choices": ["Adze", "Apple"], "answer": 0},
    "extractive": {
        "context": "An adze.",
        "question": "Name a tool.",
        "answers": {"text": ["An adze"], "answer_start": [0]},
    },
    "classification": {"text": "The adze is sharp", "label": "good"},
    "text": {"text": "The adze is a tool for wood"},
}
COLUMNS = [
    *(
        "note",
        "history",
        "system",
        "system_prompt",
        "tools",
        "functions",
        "tool_calls",
        "context",
        "passage",
        "choices",
    ),
    *(
        "options",
        "chosen",
        "rejected",
        "score",
        "weight",
        "loss_mask",
        "labels",
        "title",
        "split",
        "group",
        "id",
        "input",
    ),
]


def nested(value: Any) -> Iterator[Any]:
    """Every object and list inside a value."""
    if isinstance(value, dict | list):
        yield value
        for each in value.values() if isinstance(value, dict) else value:
            yield from nested(each)


def rows_with_canaries(row: dict[str, Any]) -> Iterator[tuple[dict[str, Any], str, str]]:
    """The row with a canary in one place: a column, a key, a nested key or a further element; its name and its text."""
    for column in COLUMNS:
        if column not in row:
            yield row | {column: f"The canary of {column} sings"}, column, f"The canary of {column} sings"
    for number, _ in enumerate(nested(row)):
        changed, key, canary = deepcopy(row), f"key {number}", f"Canary number {number} sings"
        place = list(nested(changed))[number]
        if isinstance(place, dict):
            place[key] = canary
            yield changed, key, canary
        else:
            place.append({key: canary} if isinstance(place[0], dict) else canary)
            yield changed, "answers", canary  # the name under which further answers are told


@pytest.mark.parametrize("row", FORMATS.values(), ids=FORMATS)
def test_canary_comes_out_or_is_told_or_its_row_is_refused(
    row: dict[str, Any], prepared: Preparer, tmp_path: Path
) -> None:
    canaries = list(rows_with_canaries(row))
    others = [{"text": "The adze is blunt", "label": "bad"}] if "text" in row and "label" in row else []
    source = write_jsonl(tmp_path / "rows.jsonl", [*(changed for changed, _, _ in canaries), *others])
    made = prepared(source, on_error="skip", quality=False, dedup=False)
    refused = {drop["id"] for drop in made.drops}
    told = " ".join(each.name for each in made.result.unused)
    text = "\n".join([*made.texts, *(row.tools or "" for row in made.rows)])
    for line, (_, name, canary) in enumerate(canaries, 1):
        assert name in told or canary in text or f"rows/rows.jsonl:{line}" in refused, name
    assert "canary" not in told.lower()


def test_columns_that_are_not_used_are_counted_by_rows(prepared: Preparer, tmp_path: Path) -> None:
    first, second, third = questions(3)
    rows: list[dict[str, Any]] = [
        first | {"Topic": "a", "empty": ""},
        second | {"Topic": None, "empty": None},
        third | {"topic": 0},
    ]
    unused = prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).result.unused
    assert [(each.source, each.kind, each.name, each.count) for each in unused] == [("rows", "column", "topic", 2)]


def test_column_of_the_same_name_in_another_case_is_told(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"Text": "A tool for wood", "text": "Another tool for wood"}]
    assert [each.name for each in prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).result.unused] == [
        "text (again)"
    ]


def test_columns_that_the_options_name_are_used(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {"Ward": f"w{n}", "when": f"2024-01-0{n}"} for n, row in enumerate(questions(4), 1)]
    source = write_jsonl(tmp_path / "rows.jsonl", rows)
    made = prepared(source, columns={"group": "ward"}, split_by_time="When")
    assert made.result.unused == []


def test_mapping_over_a_column_leaves_that_column_out(prepared: Preparer, tmp_path: Path) -> None:
    source = write_jsonl(tmp_path / "rows.jsonl", [{"title": "A tool for wood", "text": "An adze"}])
    made = prepared(source, columns={"text": "title"})
    assert made.texts == ["A tool for wood"]
    assert [each.name for each in made.result.unused] == ["text"]


REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "tools of a format that does not read them": (
        FORMATS["alpaca"] | {"tools": [{"name": "saw"}]},
        "'tools' belongs to tool calls, and the format alpaca does not read it",
    ),
    "tools that are no list": (FORMATS["messages"] | {"tools": "a saw"}, "'tools' is not a list of functions"),
    "tool without a name": (FORMATS["messages"] | {"tools": [{"type": "saw"}]}, "tool 1 of the column 'tools'"),
    "tool calls of the user": (
        {"messages": [TURNS[0] | {"tool_calls": [CALL]}, TURNS[1]]},
        "turn 1 of 'messages': 'tool_calls' belongs to tool calls",
    ),
    "tool call without a name": (
        {"messages": [TURNS[0], TURNS[1] | {"tool_calls": [{"id": 1}]}]},
        "turn 2 of 'messages' has a tool call without the name",
    ),
    "arguments that are no object": (
        {"messages": [TURNS[0], TURNS[1] | {"tool_calls": [{"name": "saw", "arguments": "wood"}]}]},
        "turn 2 of 'messages' has a tool call whose arguments are not an object",
    ),
    "result of no call": (
        {"messages": [TURNS[0], CALLING, RESULT | {"tool_call_id": "c2"}, TURNS[1]]},
        "turn 3 of 'messages' is the result of a tool call that no earlier turn makes",
    ),
    "result at the end": ({"messages": [TURNS[0], CALLING, RESULT]}, "the assistant, who speaks last"),
    "result without a call": (
        {"messages": [TURNS[0], {"role": "tool", "content": "ok"}]},
        "results of tools follow a turn of the assistant",
    ),
    "picture as the result of a tool": (
        {"messages": [TURNS[0], CALLING, RESULT | {"content": [{"type": "image", "source": "x"}]}, TURNS[1]]},
        "a part of type image",
    ),
    "picture": (
        {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": "x"}]}, TURNS[1]]},
        "a part of type image_url",
    ),
    "turn of weight 0": ({"messages": [TURNS[0], TURNS[1] | {"weight": 0}]}, "--ignore weight"),
    "row not to be trained": (FORMATS["alpaca"] | {"train": False}, "--ignore train"),
    "mask": (FORMATS["messages"] | {"loss_mask": [1, 0]}, "--ignore loss_mask"),
    "label of a completion": (
        FORMATS["prompt-completion"] | {"label": "odd"},
        "'label' may mark the answer as a bad one",
    ),
    "rating that is none": (
        FORMATS["prompt-completion"] | {"desirable": "odd"},
        "the rating of the answer is neither true nor false",
    ),
    "score of a completion": (FORMATS["prompt-completion"] | {"score": 0.1}, "--ignore score"),
    "pair without a rejected answer": (FORMATS["preference"] | {"rejected": " "}, "'rejected' is empty"),
    "pair without a chosen answer": (FORMATS["preference"] | {"chosen": None}, "'chosen' is empty"),
    "pair without a prompt": ({"chosen": "An adze", "rejected": "A pear"}, "Map that one: --map prompt=COLUMN"),
    "pair of different prompts": (
        {"chosen": TURNS, "rejected": [{"role": "user", "content": "Name a fruit."}, TURNS[1]]},
        "do not follow the same prompt",
    ),
    "pair of which one goes on": (
        {"chosen": TURNS, "rejected": [*TURNS, {"role": "user", "content": "Why?"}, TURNS[1]]},
        "do not follow the same prompt",
    ),
    "preference of nothing": (FORMATS["messages"] | {"task": "preference"}, "neither a rejected answer nor a label"),
    "half of a pair": ({"prompt": "Name a tool.", "chosen": "An adze."}, "--ignore rejected"),
    "rejected answer beside a completion": (
        FORMATS["prompt-completion"] | {"rejected": "A pear."},
        "Map the columns to prompt, chosen and rejected",
    ),
    "empty turn of a transcript": (
        {"chosen": "Human: \n\nAssistant: An adze.", "rejected": "Human: \n\nAssistant: A pear."},
        "a turn of the conversation is empty",
    ),
    "preference pair as a list": ({"instruction": "I", "output": ["Good", "Bad"]}, "'output' is a list of 2 values"),
    "context of a completion": (FORMATS["prompt-completion"] | {"context": "C"}, "Map the columns to question, answer"),
    "label under another name": ({"text": "A tool for wood", "Sentiment": "good"}, "--map label=sentiment"),
    "label of a text in the plural": ({"text": "A tool for wood", "labels": "good"}, "--map label=labels"),
    "history that is no list": (FORMATS["alpaca"] | {"history": "before"}, "'history' is not a list of turns"),
    "two system messages": (
        {"system": "Be brief.", "messages": [{"role": "system", "content": "Be kind."}, *TURNS]},
        "at most one system message",
    ),
    "columns, not rows": ({"question": ["A?", "B?"], "answer": ["a", "b"]}, "'question' is a list of 2 values"),
    "choices as one text": (FORMATS["question-answer"] | {"choices": "Adze or apple"}, "are not a list of two or more"),
    "number of no choice": (FORMATS["multiple choice"] | {"answer": 5}, "none of the choices"),
}


@pytest.mark.parametrize(("row", "says"), REFUSED.values(), ids=REFUSED)
def test_row_that_would_lose_its_meaning_is_refused(
    row: dict[str, Any], says: str, prepared: Preparer, tmp_path: Path
) -> None:
    with pytest.raises(RecordError) as error:
        prepared(write_jsonl(tmp_path / "rows.jsonl", [row, row]))
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("row", "ignored", "unused"),
    [
        (FORMATS["messages"] | {"tools": [{"name": "saw"}]}, "tools", ("column", "tools")),
        ({"messages": [TURNS[0], TURNS[1] | {"weight": 0}]}, "weight", ("key of a turn", "weight")),
        ({"text": "A tool for wood", "sentiment": "good"}, "Sentiment", ("column", "sentiment")),
        (FORMATS["alpaca"] | {"system": "Be brief."}, "system", ("column", "system")),
    ],
)
def test_ignore_leaves_it_out_and_tells(
    row: dict[str, Any], ignored: str, unused: tuple[str, str], prepared: Preparer, tmp_path: Path
) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [row]), ignored=(ignored,))
    assert [(each.kind, each.name) for each in made.result.unused] == [unused]
    assert made.corpus.manifest["config"]["ignored"] == [ignored]
    assert "system" not in {turn.role for turn in made.rows[0].messages}


def test_rows_marked_as_bad_can_be_skipped(prepared: Preparer, tmp_path: Path) -> None:
    rows = [
        FORMATS["prompt-completion"] | {"train": True},
        {"prompt": "Name a fish.", "completion": "Owl", "train": False},
    ]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), on_error="skip")
    assert [row.answer for row in made.rows] == ["An adze for wood."]
    assert made.result.dropped == {"unread_column": 1}


def test_choices_are_counted_from_the_number_that_fits_the_file(prepared: Preparer, tmp_path: Path) -> None:
    choices = ["Newt", "Pike", "Owl"]
    rows = [{"question": f"Which is number {n}?", "choices": choices, "answer": n} for n in (1, 2, 3)]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows), split_ratio="1/0/0", dedup=False)
    assert [row.answer for row in made.rows] == choices


def test_names_that_are_ids_do_not_fill_the_list(prepared: Preparer, tmp_path: Path) -> None:
    rows = [row | {f"id-{n}": n, "topic": "a"} for n, row in enumerate(questions(250))]
    unused = prepared(write_jsonl(tmp_path / "rows.jsonl", rows)).result.unused
    assert (len(unused), unused[-1].name, unused[-1].count) == (201, "(51 more names)", 1)
    assert "topic" in {each.name for each in unused}


def test_ignoring_a_column_ignores_its_other_names(prepared: Preparer, tmp_path: Path) -> None:
    row = {"question": "Name a tool.", "options": "see the page", "answer": "An adze for wood."}
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [row]), ignored=("choices",))
    assert [each.name for each in made.result.unused] == ["options"]
