"""Tool calls, their arguments and their results, from the source to the corpus."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyarrow import parquet

from finetune.corpus.store import SCHEMA
from finetune.records import ToolCall

from ..conftest import Preparer, questions, write_jsonl

ASKED = {"role": "user", "content": "Whose is it?"}
TOLD = {"role": "assistant", "content": "It is hers."}


def conversation(arguments: Any, result: Any = "Found.") -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "look_up", "arguments": arguments}}
    return {
        "messages": [
            ASKED,
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "tool_call_id": "c1", "content": result},
            TOLD,
        ],
        "tools": [{"type": "function", "function": {"name": "look_up", "parameters": {"type": "object"}}}],
    }


@pytest.mark.parametrize(
    ("given", "written"),
    [
        ({"name": "Bä", "depth": 2}, '{"name": "Bä", "depth": 2}'),
        ('{"name":"B\\u00e4","depth":2}', '{"name": "Bä", "depth": 2}'),
        ("", "{}"),
        (None, "{}"),
        ({"code": "\n  if x:\r\n\ty  "}, '{"code": "\\n  if x:\\r\\n\\ty  "}'),
    ],
)
def test_arguments_have_one_form_and_keep_their_characters(
    given: Any, written: str, prepared: Preparer, tmp_path: Path
) -> None:
    (row,) = prepared(write_jsonl(tmp_path / "rows.jsonl", [conversation(given)])).rows
    assert row.messages[1].tool_calls == (ToolCall("look_up", written, "c1"),)
    assert (row.messages[1].content, row.messages[2].name) == ("", "look_up")


def test_identifiers_and_control_tokens_are_replaced_everywhere(prepared: Preparer, tmp_path: Path) -> None:
    row = conversation(
        {"mail": "a.b@example.org", "card": 4111111111111111, "note": "end<|im_end|>"},
        "a.b@example.org says <|im_end|>",
    )
    row["tools"][0]["function"]["description"] = "Ask a.b@example.org <|im_end|>"
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [row]))
    (example,) = made.rows
    (call,) = example.messages[1].tool_calls
    assert json.loads(call.arguments) == {"mail": "[EMAIL]", "card": "[CARD]", "note": "end< |im_end|>"}
    assert example.messages[2].content == "[EMAIL] says < |im_end|>"
    assert "Ask [EMAIL] < |im_end|>" in (example.tools or "")
    assert made.result.scrubbed == {"CARD": 1, "EMAIL": 3}
    assert made.result.cleaned == {"control tokens broken up": 1}


def test_names_and_ids_control_nothing(prepared: Preparer, tmp_path: Path) -> None:
    row = conversation({})
    row["messages"][1]["tool_calls"][0] |= {"id": "<|im_end|>", "function": {"name": "x<|im_end|>"}}
    row["messages"][2]["tool_call_id"] = "<|im_end|>"
    (example,) = prepared(write_jsonl(tmp_path / "rows.jsonl", [row])).rows
    assert example.messages[1].tool_calls == (ToolCall("x< |im_end|>", "{}", "< |im_end|>"),)
    assert (example.messages[2].tool_call_id, example.messages[2].name) == ("< |im_end|>", "x< |im_end|>")


def test_answers_that_are_only_calls_are_kept_and_compared(prepared: Preparer, tmp_path: Path) -> None:
    rows = [{"messages": conversation({"name": name})["messages"][:2]} for name in ("Ann", "Bob", "Ann")]
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", rows))
    assert [row.messages[-1].text for row in made.rows] == ['look_up({"name": "Ann"})', 'look_up({"name": "Bob"})']
    assert made.result.dropped == {"duplicate": 1}


def test_rows_that_call_tools_can_be_left_out(prepared: Preparer, tmp_path: Path) -> None:
    named = {"messages": [ASKED, TOLD], "tools": conversation({})["tools"]}
    blocks = [{"type": "tool_use", "id": "t1", "name": "look_up", "input": {}}]
    calls = [
        conversation({"name": "Ann"}),
        {"messages": [ASKED, {"role": "assistant", "content": blocks}]},
        {"messages": [ASKED, {"role": "function_call", "content": '{"name": "look_up"}'}]},
    ]
    made = prepared(
        write_jsonl(tmp_path / "rows.jsonl", [named, *calls]), ignored=("tools", "tool_calls"), on_error="skip"
    )
    assert [(row.id, row.uses_tools) for row in made.rows] == [("rows/rows.jsonl:1", False)]
    assert sum(made.result.dropped.values()) == 3
    assert {(each.name, each.count) for each in made.result.unused} == {("tools", 1)}


def test_two_calls_and_two_results_in_one_turn(prepared: Preparer, tmp_path: Path) -> None:
    calls = [{"type": "tool_use", "id": f"t{n}", "name": f"tool_{n}", "input": {}} for n in (1, 2)]
    results = [{"type": "tool_result", "tool_use_id": f"t{n}", "content": f"result {n}"} for n in (2, 1)]
    turns = [ASKED, {"role": "assistant", "content": calls}, {"role": "user", "content": results}, TOLD]
    (row,) = prepared(write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}])).rows
    assert [(turn.name, turn.content) for turn in row.messages[2:4]] == [("tool_2", "result 2"), ("tool_1", "result 1")]


def test_parts_without_a_type_are_texts(prepared: Preparer, tmp_path: Path) -> None:
    turns = [{"role": "system", "content": [{"text": "Be brief."}]}, {"role": "user", "content": ["Whose?"]}, TOLD]
    (row,) = prepared(write_jsonl(tmp_path / "rows.jsonl", [{"messages": turns}])).rows
    assert [turn.content for turn in row.messages] == ["Be brief.", "Whose?", "It is hers."]


def test_pairs_may_call_tools(prepared: Preparer, tmp_path: Path) -> None:
    row = conversation({"name": "Ann"})
    pair = {
        "prompt": row["messages"][:1],
        "chosen": row["messages"][1:2],
        "rejected": "No idea.",
        "tools": row["tools"],
    }
    (made,) = prepared(write_jsonl(tmp_path / "rows.jsonl", [pair])).rows
    assert (made.messages[-1].text, made.rejected[-1].text) == ('look_up({"name": "Ann"})', "No idea.")
    assert made.tools is not None


def test_only_corpora_with_tools_have_their_columns(prepared: Preparer, tmp_path: Path) -> None:
    source, other = tmp_path / "rows.jsonl", tmp_path / "other.jsonl"
    write_jsonl(source, [conversation({"name": f"n{n}"}, f"Found {n}.") for n in range(3)])
    write_jsonl(other, questions(3))
    (file,) = prepared(source, other, split_ratio="1/0/0").corpus.files("train")
    schema = parquet.read_schema(file)
    assert schema.names == [*SCHEMA.names, "tools"]
    turn = schema.field("messages").type.value_type
    assert [turn.field(number).name for number in range(turn.num_fields)] == [
        *("role", "content", "tool_calls", "tool_call_id", "name")
    ]
    (file,) = prepared(other, split_ratio="1/0/0").corpus.files("train")
    assert parquet.read_schema(file).equals(SCHEMA)


def test_rows_with_tools_are_a_source_again(prepared: Preparer, tmp_path: Path) -> None:
    made = prepared(write_jsonl(tmp_path / "rows.jsonl", [conversation({"name": "Ann"})]), split_ratio="1/0/0")
    (again,) = prepared(made.corpus.path / "data").rows
    assert (again.messages, again.tools) == (made.rows[0].messages, made.rows[0].tools)


def test_parquet_of_objects_has_no_arguments_of_other_rows(prepared: Preparer, tmp_path: Path) -> None:
    rows = [conversation({"name": "Ann"}), conversation({"town": "Brest"})]
    rows[1]["tools"][0]["function"]["strict"] = True
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "rows.parquet")
    made = prepared(tmp_path / "rows.parquet", near_duplicates=1.0, split_ratio="1/0/0")
    assert [row.messages[1].tool_calls[0].arguments for row in made.rows] == ['{"name": "Ann"}', '{"town": "Brest"}']
    assert ["strict" in (row.tools or "") for row in made.rows] == [False, True]
