"""Changes the texts of examples: in their turns, and in their tools and tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finetune.prepare.rows.tool_calls import change_json
from finetune.records import Example, Message, ToolCall

Change = Callable[[str], str]


def change_turns(example: Example, change: Change, kept: int = 0) -> Example:
    """The example with the contents of all turns but the last `kept` changed; the same object if nothing changes."""
    changed = tuple(
        (*(_change_turn(turn, change) for turn in messages[: len(messages) - kept]), *messages[len(messages) - kept :])
        for messages in example.conversations
    )
    return example if changed == example.conversations else _with_conversations(example, changed)


def change_tools(example: Example, change: Change) -> Example:
    """The example with the texts in its tools and in the arguments of its calls changed; the same object if none changes."""
    if not example.uses_tools:
        return example

    def change_call(call: ToolCall) -> ToolCall:
        return replace(call, arguments=change_json(call.arguments, change))

    changed = tuple(
        tuple(replace(turn, tool_calls=tuple(map(change_call, turn.tool_calls))) for turn in messages)
        for messages in example.conversations
    )
    tools = None if example.tools is None else change_json(example.tools, change)
    if (changed, tools) == (example.conversations, example.tools):
        return example
    return replace(_with_conversations(example, changed), tools=tools)


def _change_turn(turn: Message, change: Change) -> Message:
    content = change(turn.content)
    return turn if content == turn.content else replace(turn, content=content)


def _with_conversations(example: Example, conversations: tuple[tuple[Message, ...], ...]) -> Example:
    messages, *rejected = conversations
    return replace(example, messages=messages, rejected=rejected[0] if rejected else ())
