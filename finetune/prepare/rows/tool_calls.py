"""Reads tools, tool calls and their results in the forms of OpenAI, Anthropic and ShareGPT, and writes them in one form."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.clean.special_tokens import escape_control_tokens
from finetune.prepare.rows.columns import has_value, parse_json
from finetune.records import Message, ToolCall

ARGUMENTS = ("arguments", "input", "parameters")  # keys of a call; Anthropic has `input`
NO_PARAMETERS: Mapping[str, Any] = {"type": "object", "properties": {}}


def read_tools(value: object, unread: set[str]) -> str | None:
    """The functions that an assistant may call, as a JSON list in the form of OpenAI; None if there are none.

    `unread` receives the names of keys that stand beside a function.

    Raises:
        Unusable: it is not a list of functions with names.
    """
    if not has_value(value):
        return None
    tools = parse_json(value)
    if not isinstance(tools, list):
        raise Unusable(
            "bad_tools", "the column 'tools' is not a list of functions. Write it as one, or as such a list in JSON"
        )
    return write_json([_read_tool(parse_json(tool), number, unread) for number, tool in enumerate(tools, 1)])


def _read_tool(tool: object, number: int, unread: set[str]) -> dict[str, Any]:
    """A tool as {"type", "function"}, or only its function; Anthropic's has an `input_schema`."""
    function = parse_json(tool.get("function", tool)) if isinstance(tool, Mapping) else None
    if not isinstance(tool, Mapping) or not isinstance(function, Mapping) or not _is_name(function.get("name")):
        raise Unusable("bad_tools", f"tool {number} of the column 'tools' is not a function with a name. Name it")
    if "function" in tool:
        unread.update(f"tools.{key}" for key in tool.keys() - {"type", "function"} if has_value(tool[key]))
    schema = function.get("parameters") or function.get("input_schema") or NO_PARAMETERS
    kept = {key: value for key, value in function.items() if key not in {"type", "input_schema"}}
    return {"type": "function", "function": {**kept, "parameters": schema}}


def read_calls(value: object, where: str, unread: set[str]) -> tuple[ToolCall, ...]:
    """The calls in `tool_calls`, in a `function_call`, in the text of a turn that is a call, or in a block of Anthropic's.

    `unread` receives the names of keys that calls have and `ToolCall` lacks.

    Raises:
        Unusable: one of them has no name, or arguments that are not a JSON object.
    """
    calls = parse_json(value)
    return tuple(_read_call(call, where, unread) for call in (calls if isinstance(calls, list) else [calls]))


def _read_call(call: object, where: str, unread: set[str]) -> ToolCall:
    function = parse_json(call.get("function", call)) if isinstance(call, Mapping) else None
    if not isinstance(call, Mapping) or not isinstance(function, Mapping) or not _is_name(function.get("name")):
        raise Unusable("bad_tool_call", f"{where} has a tool call without the name of a function. Add it")
    key = next((key for key in ARGUMENTS if key in function), ARGUMENTS[0])
    arguments = parse_json(function.get(key)) if has_value(function.get(key)) else {}
    if not isinstance(arguments, Mapping):
        raise Unusable(
            "bad_tool_call",
            f"{where} has a tool call whose arguments are not an object. Write them as one, or as an object in JSON",
        )
    others = {**{name: call[name] for name in call.keys() - {"function"}}, **function}
    known = {"id", "type", "name", "index", key}
    unread.update(f"tool_calls.{name}" for name in others.keys() - known if has_value(others[name]))
    return ToolCall(read_name(function["name"]) or "", write_json(arguments), read_name(call.get("id")))


def read_name(value: object) -> str | None:
    """A name or an id, in which control tokens have no effect; None if it is missing."""
    return escape_control_tokens(str(value).strip()) if has_value(value) else None


def write_result(value: object) -> str:
    """The result of a tool as text: lists and objects are written as JSON."""
    if value is None:
        return ""
    return value if isinstance(value, str) else write_json(value)


def link_results(messages: Sequence[Message], name: str) -> list[Message]:
    """The messages, in which each result of a tool has the name of the function if it refers to its call.

    Raises:
        Unusable: a result refers to a call that no earlier turn makes.
    """
    names: dict[str, str] = {}
    linked = []
    for number, message in enumerate(messages, 1):
        names |= {call.id: call.name for call in message.tool_calls if call.id is not None}
        if message.tool_call_id is not None:
            if message.tool_call_id not in names:
                raise Unusable(
                    "bad_tool_result",
                    f"turn {number} of {name} is the result of a tool call that no earlier turn makes. Correct its id",
                )
            message = replace(message, name=message.name or names[message.tool_call_id])
        linked.append(message)
    return linked


def change_json(text: str, change: Callable[[str], str]) -> str:
    """JSON in which `change` has been applied to all texts, and to numbers if it changes them."""
    return write_json(_change(json.loads(text), change))


def _change(value: Any, change: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {change(key): _change(each, change) for key, each in value.items()}
    if isinstance(value, list):
        return [_change(each, change) for each in value]
    if isinstance(value, int | float) and not isinstance(value, bool):
        changed = change(written := str(value))
        return value if changed == written else changed
    return value


def write_json(value: object) -> str:
    """JSON in one line, with characters beyond ASCII as they are.

    Raises:
        Unusable: it contains half of a surrogate pair.
    """
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Unusable(
            "broken_unicode", "a tool or a tool call contains half of a surrogate pair. Save the file again as UTF-8"
        ) from None
    return text


def _is_name(value: object) -> bool:
    return isinstance(value, str) and bool(value.strip())
