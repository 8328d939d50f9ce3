"""Reads the turns of a conversation: lists of messages in the common forms, earlier exchanges and system messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.rows.columns import Values, has_value, optional_text, parse_json, required_text
from finetune.prepare.rows.meaning import check_key
from finetune.prepare.rows.tool_calls import link_results, read_calls, read_name, read_tools, write_result
from finetune.records import Message, Role, ToolCall

SPEAKERS: Mapping[str, Role] = {
    **{"system": "system", "user": "user", "assistant": "assistant", "tool": "tool"},
    **{"developer": "system", "human": "user", "gpt": "assistant", "model": "assistant"},
    **dict.fromkeys(("function", "observation", "ipython"), "tool"),
    **dict.fromkeys(("function_call", "tool_call"), "assistant"),
}
CALLERS = frozenset({"function_call", "tool_call"})  # speakers in ShareGPT whose text is a call
TALKERS = frozenset(
    {"system", "user", "assistant", "human", "gpt"}
)  # speakers whose text is neither a call nor a result
CALLS = ("tool_calls", "function_call")  # keys of a turn
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
SKIP = "Correct the row, or drop such rows with --on-error skip"
NAME = re.compile(r"[\w-]{1,24}")  # what may be repeated in a message: a word, not the text of a row
ORDER = re.compile(r"s?ua(?:(?:t+u?|u)a)*")  # the first letters of the roles of all turns


class Turns:
    """Reads turns, and collects in `unread` the keys that they have and messages lack.

    `ignored` are the keys to do without although they change what a turn means: without `tool_calls`, no turn calls tools.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self.unread: set[str] = set()
        self._ignored = ignored
        self._with_calls = "tool_calls" not in ignored

    def read(self, value: object, column: str) -> list[Message]:
        """A list of turns as messages, without empty system messages; the list may also be written as JSON.

        Raises:
            Unusable: it is not a list, or a turn cannot be used.
        """
        turns = parse_json(value)
        if not isinstance(turns, list) or not turns:
            raise Unusable("no_messages", f"the column {column!r} is not a list of turns, or is empty. {SKIP}")
        read = (self._read_turn(turn, f"turn {number} of {column!r}") for number, turn in enumerate(turns, 1))
        messages = [message for each in read for message in each]
        return (
            link_results(messages, f"{column!r}") if any(message.role == "tool" for message in messages) else messages
        )

    def tools(self, columns: Values) -> str | None:
        """The functions in the column `tools`, as JSON.

        Raises:
            Unusable: it is not a list of functions.
        """
        return read_tools(columns.get("tools"), self.unread)

    def opening(self, columns: Values) -> list[Message]:
        """The system message and the earlier exchanges in the columns `system` and `history`.

        Raises:
            Unusable: one of them cannot be used.
        """
        if "system" not in columns and "history" not in columns:
            return []
        system = columns.get("system")
        if isinstance(system, list) and any(
            isinstance(part, Mapping) for part in system
        ):  # blocks, as Anthropic has them
            system = self._join_parts(system, "the column 'system'")
        system = optional_text({"system": system}, "system")
        messages = [Message("system", system)] if system else []
        history = parse_json(columns.get("history"))
        if not has_value(history):
            return messages
        if isinstance(history, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
            roles: tuple[Role, Role] = ("user", "assistant")
            said = [turn for exchange in history for turn in zip(roles, exchange, strict=True)]
            return messages + [
                _message(role, text, f"turn {number} of 'history'") for number, (role, text) in enumerate(said, 1)
            ]
        return messages + self.read(history, "history")

    def _read_turn(self, turn: object, where: str) -> list[Message]:
        """The messages of a turn: one, none for an empty system message, or several for results of tools."""
        if not isinstance(turn, Mapping):
            raise Unusable(
                "bad_turn", f"{where} is not an object with 'role' and 'content', or 'from' and 'value'. {SKIP}"
            )
        if not (("role" in turn or "from" in turn) and ("content" in turn or "value" in turn)):
            turn = {str(key).strip().lower(): value for key, value in turn.items()}
        speaker, text = ("role" if "role" in turn else "from"), ("content" if "content" in turn else "value")
        role = _role(turn.get(speaker), speaker, where)
        content = turn.get(text)
        if len(turn) == 2 and turn[speaker] in TALKERS and isinstance(content, str) and has_value(content):
            return [Message(role, content)]  # as nearly always
        others = {}
        if len(turn) > 2 or text not in turn:
            others = {str(key).strip().lower(): turn[key] for key in turn if key not in (speaker, text)}
        is_call = str(turn.get(speaker)).strip().lower() in CALLERS
        if (role == "tool" or is_call) and not self._with_calls:
            raise Unusable("tool_call", f"{where} belongs to tool calls, which --ignore leaves out. {SKIP}")
        if role == "tool":
            return [self._read_result(content, others, where)]
        calls: tuple[ToolCall, ...] = ()
        results: list[Message] = []
        if is_call:
            calls, content = read_calls(content, where, self.unread), None
        if isinstance(content, list):
            calls, results, content = self._read_blocks(role, content, where)
        for key in CALLS if others and role == "assistant" else ():
            if has_value(others.get(key)) and self._with_calls:
                calls += read_calls(others.pop(key), where, self.unread)
        self._note_keys(others, where)
        if not has_value(content) and (calls or results or role == "system"):
            return [*results, *([Message(role, "", calls)] if calls else [])]
        message = _message(role, content, f"{where}: {text!r}")
        return [*results, replace(message, tool_calls=calls) if calls else message]

    def _read_blocks(
        self, role: Role, blocks: Sequence[object], where: str
    ) -> tuple[tuple[ToolCall, ...], list[Message], str | None]:
        """The tool calls, the results of tools and the text in a content that is a list of parts, as Anthropic writes it."""
        kind = "tool_use" if role == "assistant" else "tool_result" if role == "user" else "none"
        tools = [block for block in blocks if self._with_calls and _is_block(block, kind)]
        calls, results = (tools, []) if role == "assistant" else ([], tools)
        parts = [block for block in blocks if block not in tools]
        return (
            tuple(call for block in calls for call in read_calls(block, where, self.unread)),
            [
                self._read_result(
                    block.get("content"), {key: block[key] for key in block.keys() - {"type", "content"}}, where
                )
                for block in results
                if isinstance(block, Mapping)
            ],
            self._join_parts(parts, where) if parts or not tools else None,
        )

    def _read_result(self, content: object, keys: dict[str, Any], where: str) -> Message:
        number, name = keys.pop("tool_call_id", None) or keys.pop("tool_use_id", None), keys.pop("name", None)
        self._note_keys(keys, where)
        if isinstance(content, list) and all(isinstance(part, Mapping) and "type" in part for part in content):
            content = self._join_parts(content, where)
        return Message("tool", write_result(content), tool_call_id=read_name(number), name=read_name(name))

    def _note_keys(self, keys: Mapping[Any, object], where: str) -> None:
        for key, value in keys.items():
            name = str(key).strip().lower()
            if has_value(value) and (name in self._ignored or check_key(name, value, where)):
                self.unread.add(str(key))

    def _join_parts(self, parts: Sequence[object], where: str) -> str:
        """The texts in a content that is a list of parts; pictures and other types are refused."""
        texts = []
        for part in parts:
            kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
            text = part.get("text") if isinstance(part, Mapping) else part
            if kind not in TEXT_PARTS or not isinstance(text, str):
                named = kind if isinstance(kind, str) and NAME.fullmatch(kind) else "another type"
                raise Unusable(
                    "no_text_part", f"{where} has a part of type {named}, and slmtune reads text only. {SKIP}"
                )
            if isinstance(part, Mapping):
                self._note_keys({f"content.{key}": part[key] for key in part.keys() - {"type", "text"}}, where)
            texts.append(text)
        return "\n".join(texts)


def check_turns(messages: Sequence[Message], name: str) -> None:
    """Require an optional system message, then alternating user and assistant turns, as all chat templates render.

    Results of tools follow an assistant turn; the assistant, or the user and the assistant, go on after them.

    Raises:
        Unusable: the turns are in another order.
    """
    roles = [message.role for message in messages]
    if not ORDER.fullmatch("".join(role[0] for role in roles)):
        raise Unusable(
            "bad_turns",
            f"the turns of {name} are {', '.join(roles)}. They must alternate between user and assistant, after at most one "
            "system message; results of tools follow a turn of the assistant, who speaks last",
        )


def _role(value: object, key: str, where: str) -> Role:
    name = str(value).strip().lower()
    if name in SPEAKERS:
        return SPEAKERS[name]
    shown = f" {name!r}" if NAME.fullmatch(name) else ""
    raise Unusable("bad_role", f"{where} has an unknown {key!r}{shown}. Known: {', '.join(SPEAKERS)}")


def _is_block(value: object, kind: str) -> bool:
    return isinstance(value, Mapping) and value.get("type") == kind


def _message(role: Role, text: object, where: str) -> Message:
    if isinstance(text, str) and text and not text.isspace():
        return Message(role, text)
    name = "answer" if role == "assistant" else "question"
    try:
        return Message(role, required_text({name: text}, name))
    except Unusable as error:
        raise Unusable(error.reason, f"{where} is {'not text' if has_value(text) else 'empty'}. {SKIP}") from None
