"""Reads the turns of a conversation: lists of messages in the common forms, earlier exchanges and system messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.rows.columns import Values, has_value, optional_text, parse_json, required_text
from finetune.prepare.rows.meaning import WHY, check_key
from finetune.records import Message, Role

SPEAKERS: Mapping[str, Role] = {
    **{"system": "system", "user": "user", "assistant": "assistant"},
    **{"developer": "system", "human": "user", "gpt": "assistant", "model": "assistant"},
}
TOOL_SPEAKERS = frozenset({"tool", "function", "function_call", "tool_call", "observation", "ipython"})
TEXT_PARTS = frozenset({"text", "input_text", "output_text"})
NAME = re.compile(r"[\w-]{1,24}")  # what may be repeated in a message: a word, not the text of a row


class Turns:
    """Reads turns, and collects in `unread` the keys that they have and messages lack.

    `ignored` are the keys to do without although they change what a turn means.
    """

    def __init__(self, ignored: Collection[str] = ()) -> None:
        self.unread: set[str] = set()
        self._ignored = ignored

    def read(self, value: object, column: str) -> list[Message]:
        """A list of turns as messages, without empty system messages; the list may also be written as JSON.

        Raises:
            Unusable: it is no list, or a turn cannot be used.
        """
        turns = parse_json(value)
        if not isinstance(turns, list) or not turns:
            raise Unusable("no_messages", f"the column {column!r} is not a list of turns, or is empty")
        messages = (self._read_turn(turn, f"turn {number} of {column!r}") for number, turn in enumerate(turns, 1))
        return [message for message in messages if message is not None]

    def opening(self, columns: Values) -> list[Message]:
        """The system message and the earlier exchanges in the columns `system` and `history`.

        Raises:
            Unusable: one of them cannot be used.
        """
        if "system" not in columns and "history" not in columns:
            return []
        system = optional_text(columns, "system")
        messages = [Message("system", system)] if system else []
        history = parse_json(columns.get("history"))
        if not has_value(history):
            return messages
        if isinstance(history, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in history):
            texts = [
                (pair, role) for exchange in history for pair, role in zip(exchange, ("user", "assistant"), strict=True)
            ]
            return messages + [
                _message(role, text, f"turn {number} of 'history'")  # type: ignore[arg-type]
                for number, (text, role) in enumerate(texts, 1)
            ]
        return messages + self.read(history, "history")

    def _read_turn(self, turn: object, where: str) -> Message | None:
        if not isinstance(turn, Mapping):
            raise Unusable("bad_turn", f"{where} is not an object with 'role' and 'content', or 'from' and 'value'")
        if not (("role" in turn or "from" in turn) and ("content" in turn or "value" in turn)):
            turn = {str(key).strip().lower(): value for key, value in turn.items()}
        speaker, text = ("role" if "role" in turn else "from"), ("content" if "content" in turn else "value")
        if len(turn) > 2:
            self._note_keys({key: value for key, value in turn.items() if key not in (speaker, text)}, where)
        role = _role(turn.get(speaker), speaker, where)
        content = turn.get(text)
        if isinstance(content, list):
            content = self._join_parts(content, where)
        if role == "system" and not has_value(content):
            return None
        return _message(role, content, f"{where}: {text!r}")

    def _note_keys(self, keys: Mapping[Any, object], where: str) -> None:
        for key, value in keys.items():
            name = str(key).strip().lower()
            if has_value(value) and (name in self._ignored or check_key(name, value, where)):
                self.unread.add(str(key))

    def _join_parts(self, parts: Sequence[object], where: str) -> str:
        """The texts of a content that is a list of parts, which pictures and tool calls are no part of."""
        texts = []
        for part in parts:
            kind = part.get("type", "text") if isinstance(part, Mapping) else "text"
            text = part.get("text") if isinstance(part, Mapping) else part
            if kind not in TEXT_PARTS or not isinstance(text, str):
                named = kind if isinstance(kind, str) and NAME.fullmatch(kind) else "another type"
                raise Unusable("no_text_part", f"{where} has a part of type {named}, and slmtune reads text only")
            if isinstance(part, Mapping):
                self._note_keys({f"content.{key}": part[key] for key in part.keys() - {"type", "text"}}, where)
            texts.append(text)
        return "\n".join(texts)


def check_turns(messages: Sequence[Message], name: str) -> None:
    """Require an optional system message, then alternating user and assistant turns, as all chat templates render.

    Raises:
        Unusable: the turns are in another order.
    """
    roles = [message.role for message in messages]
    spoken = roles[1:] if roles[:1] == ["system"] else roles
    expected = ["user", "assistant"] * (len(spoken) // 2)
    if not spoken or spoken != expected:
        raise Unusable(
            "bad_turns",
            f"the turns of {name} are {', '.join(roles)}. They must alternate between user and assistant, after "
            "at most one system message",
        )


def _role(value: object, key: str, where: str) -> Role:
    name = str(value).strip().lower()
    if name in SPEAKERS:
        return SPEAKERS[name]
    if name in TOOL_SPEAKERS:
        raise Unusable(
            "tool_call", f"{where} has the {key} {name!r}, which {WHY['tools']}. Drop such rows with --on-error skip"
        )
    shown = f" {name!r}" if NAME.fullmatch(name) else ""
    raise Unusable("bad_role", f"{where} has an unknown {key!r}{shown}. Known: {', '.join(SPEAKERS)}")


def _message(role: Role, text: object, where: str) -> Message:
    if isinstance(text, str) and text and not text.isspace():
        return Message(role, text)
    name = "answer" if role == "assistant" else "question"
    try:
        return Message(role, required_text({name: text}, name))
    except Unusable as error:
        raise Unusable(error.reason, f"{where} is {'not text' if has_value(text) else 'empty'}") from None
