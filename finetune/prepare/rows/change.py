"""Changes the texts of examples: in their turns, in their tools and tool calls, and of the context that a turn contains."""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import replace

from finetune.prepare.rows.tool_calls import change_json
from finetune.records import Example, Message, ToolCall

Change = Callable[[str], str]
Turns = tuple[Message, ...]


def change_turns(example: Example, change: Change) -> Example:
    """The example with the contents of all turns changed; the same object if nothing changes."""
    return _with_turns(example, [_change_messages(messages, change) for messages in example.conversations])


def change_texts(example: Example, change: Change, kept: int = 0) -> Example:
    """The example with its tools and all turns but the last `kept` changed, in contents and in calls of tools.

    It is the same object if nothing changes.
    """
    turns = [_change_messages(messages, change, kept, calls=True) for messages in example.conversations]
    example = _with_turns(example, turns)
    tools = None if example.tools is None else change_json(example.tools, change)
    return example if tools == example.tools else replace(example, tools=tools)


def follow_context(context: str, question: str, changed: str, change: Change) -> str | None:
    """The context of a question after `change` made `changed` of it: always a part of that, word for word.

    None if the question does not contain the context, or no longer does. What stands around the context decides where it
    is, because a change may treat the beginning of a text differently from its middle.
    """
    context = context if context in question else context.strip()
    if not context.strip() or context not in question:
        return None
    before, _, after = question.partition(context)
    between = ""
    if len(changed) > len(before) + len(after) and changed.startswith(before) and changed.endswith(after):
        between = changed[len(before) : len(changed) - len(after)]
    part = between or change(context)
    return part if part.strip() and part in changed else None


def _with_turns(example: Example, conversations: Sequence[Turns]) -> Example:
    if all(map(operator.is_, conversations, example.conversations)):
        return example
    messages, *rejected = conversations
    return replace(example, messages=messages, rejected=rejected[0] if rejected else ())


def _change_messages(messages: Turns, change: Change, kept: int = 0, *, calls: bool = False) -> Turns:
    """The turns, changed; the same object if nothing changes."""
    changed: list[Message] = []
    for number in range(len(messages) - kept):
        turn = messages[number]
        text = change(turn.content)
        called = tuple(_change_call(call, change) for call in turn.tool_calls) if calls and turn.tool_calls else None
        if text != turn.content or called not in (None, turn.tool_calls):
            changed = changed or list(messages)
            changed[number] = replace(turn, content=text, tool_calls=called or turn.tool_calls)
    return tuple(changed) if changed else messages


def _change_call(call: ToolCall, change: Change) -> ToolCall:
    return replace(call, arguments=change_json(call.arguments, change))
