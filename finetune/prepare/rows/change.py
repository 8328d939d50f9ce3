"""Changes the texts of examples: in their turns, and in their tools and tool calls."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from finetune.prepare.rows.tool_calls import change_json
from finetune.records import Example, Message, ToolCall

Change = Callable[[str], str]


def change_turns(example: Example, change: Change, kept: int = 0) -> Example:
    """The example with the contents of all turns but the last `kept` changed; the same object if nothing changes."""
    messages = _change_contents(example.messages, change, kept)
    rejected = example.rejected and _change_contents(example.rejected, change, kept)
    if messages is example.messages and rejected is example.rejected:
        return example
    return replace(example, messages=messages, rejected=rejected)


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
    messages, *rejected = changed
    return replace(example, messages=messages, rejected=rejected[0] if rejected else (), tools=tools)


def _change_contents(messages: tuple[Message, ...], change: Change, kept: int) -> tuple[Message, ...]:
    end = len(messages) - kept
    texts = [change(turn.content) for turn in messages[:end]]
    if texts == [turn.content for turn in messages[:end]]:
        return messages
    turns = [replace(turn, content=text) for turn, text in zip(messages, texts, strict=False)]
    return (*turns, *messages[end:])
