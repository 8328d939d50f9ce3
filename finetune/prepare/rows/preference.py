"""Reads rows of preference tuning: pairs of a chosen and a rejected answer to one prompt, and answers with a rating."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.rows.columns import Values, has_value, is_null, parse_json, required_text
from finetune.prepare.rows.draft import Draft
from finetune.prepare.rows.turns import Turns, check_turns
from finetune.records import Message, Task, UnusedKind, count_alike

PROMPTS = ("instruction", "question", "input", "prompt")  # columns of what is asked, joined in this order
ASKED = (*PROMPTS, "conversations", "system", "history", "tools")  # what a pair may have beside its answers
RATED = "desirable"  # the column of ratings, and the other names that it has
RATING_NAMES = (RATED, "label", "kto_tag")
RATABLE = frozenset({"completion", "output", "messages", "conversations"})  # columns with answers that can be rated
YES, NO = frozenset({"true", "1", "1.0", "desirable"}), frozenset({"false", "0", "0.0", "undesirable"})
TRANSCRIPT = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):")  # as in Anthropic's data on helpful and harmless answers


def build_pair(chosen: str, ignored: Collection[str], columns: Values) -> Draft:
    """`chosen` (a column) and `rejected`: answers to what is asked in other columns, or whole conversations.

    Without the rejected answers, which the user then ignores, the chosen ones are ordinary answers.
    """
    turns = Turns(ignored)
    prompt = _read_prompt(columns, turns)
    messages, unread = _complete(prompt, _read_answer(columns, chosen, turns), chosen)
    rejected: tuple[Message, ...] = ()
    if "rejected" not in ignored:
        before = prompt if prompt.asks else replace(prompt, messages=messages[:-1])
        rejected, _ = _complete(before, _read_answer(columns, "rejected", turns), "rejected")
        _check_pair(messages, rejected)
    left: list[tuple[UnusedKind, str]] = [("key of a turn", key) for key in turns.unread]
    left += [("column", name) for name in (*prompt.unread, *unread)]
    task: Task = "preference" if rejected else "chat"
    return Draft(messages, task, tools=prompt.tools, rejected=rejected, unread=frozenset(left))


def build_rated(build: Callable[[Values], Draft], ignored: Collection[str], columns: Values) -> Draft:
    """Rows of another shape, whose column `desirable` says whether to prefer the answer or to avoid it.

    Without the rejected answers, which the user then ignores, the desirable ones are ordinary answers.
    """
    rating = read_rating(columns[RATED])
    if rating is None:
        raise Unusable(
            "bad_rating",
            "the rating of the answer is neither true nor false. Correct it, or do without the column: --ignore COLUMN",
        )
    draft = build(columns)
    if rating and "rejected" in ignored:
        return draft
    return replace(draft, task="preference", label="desirable" if rating else "undesirable")


def read_rating(value: object) -> bool | None:
    """Whether a value says that an answer is desirable; None if it says neither that it is nor that it is not."""
    text = str(value).strip().lower()
    return True if text in YES else False if text in NO else None


def find_ratings(rows: Sequence[Mapping[str, Any]], ignored: Collection[str]) -> str | None:
    """The column that rates the answers: all of its values are true or false, and at least one is false.

    A file in which every answer is marked as a good one is not for preference tuning.
    """
    for name in RATING_NAMES:
        values = [read_rating(row[name]) for row in rows if name not in ignored and not is_null(row.get(name))]
        if False in values and None not in values:
            return name
    return None


@dataclass(frozen=True, slots=True)
class _Prompt:
    """What is asked, with the system message and earlier turns, and the columns that it was read from.

    It asks nothing if the answers are whole conversations.
    """

    messages: tuple[Message, ...]
    columns: tuple[str, ...]
    unread: tuple[str, ...]
    tools: str | None

    @property
    def asks(self) -> bool:
        """Whether it contains a question."""
        return any(turn.role == "user" for turn in self.messages)


def _read_prompt(columns: Values, turns: Turns) -> _Prompt:
    tools, opening = turns.tools(columns), turns.opening(columns)
    values = {name: value for name in (*PROMPTS, "conversations") if has_value(value := parse_json(columns.get(name)))}
    given = values.get("input")
    if isinstance(given, Mapping) and "messages" in given:  # as OpenAI writes it
        turns.unread.update(f"input.{key}" for key in given.keys() - {"messages", "tools"} if has_value(given[key]))
        messages, used = turns.read(given["messages"], "input"), ["input"]
        tools = tools or turns.tools(given)
    elif name := next((name for name in ("conversations", "prompt") if isinstance(values.get(name), list)), None):
        messages, used = turns.read(values[name], name), [name]
    else:
        used = [name for name in values if name in PROMPTS]
        text = "\n\n".join(required_text(columns, name) for name in used)
        messages = _split_transcript(text) or ([Message("user", text)] if text else [])
    unread = [name for name in values if name not in used]
    before = [name for name in ("system", "history") if has_value(columns.get(name))]
    return _Prompt((*opening, *messages), (*before, *used), tuple(unread), tools)


def _read_answer(columns: Values, name: str, turns: Turns) -> list[Message]:
    value = parse_json(columns.get(name))
    if not has_value(value):
        reason = "no_rejected" if name == "rejected" else "no_answer"
        raise Unusable(reason, f"the column {name!r} is empty. Fill it in, or drop such rows with --on-error skip")
    if isinstance(value, Mapping):
        value = [value]
    if isinstance(value, list):
        return turns.read(value, name)
    text = required_text(columns, name)
    return _split_transcript(text) or [Message("assistant", text)]


def _split_transcript(text: str) -> list[Message]:
    """The turns of a text such as "Human: … Assistant: …"; none if it is another text. An empty last turn is left out."""
    if not text.lstrip().startswith(("Human:", "Assistant:")):
        return []
    _, *parts = TRANSCRIPT.split(text)
    said = [part.strip() for part in parts[1::2]]
    if not all(said[:-1]):
        raise Unusable(
            "bad_turn", "a turn of the conversation is empty. Fill it in, or drop such rows with --on-error skip"
        )
    turns = [
        Message("user" if speaker == "Human" else "assistant", text)
        for speaker, text in zip(parts[::2], said, strict=True)
    ]
    return turns if said[-1] else turns[:-1]


def _complete(prompt: _Prompt, answer: Sequence[Message], name: str) -> tuple[tuple[Message, ...], tuple[str, ...]]:
    """The conversation that ends with an answer, and the columns of the prompt that it does not contain."""
    asked, unread = prompt.messages, tuple[str, ...]()
    if answer[0].role != "assistant":  # a whole conversation
        asked = tuple(turn for turn in asked[:1] if turn.role == "system" and answer[0].role != "system")
        said = {turn.content for turn in (*asked, *answer)}
        if any(turn.content not in said for turn in prompt.messages):
            unread = prompt.columns
    elif not prompt.asks:
        raise Unusable(
            "no_prompt",
            f"the column {name!r} is an answer, and no column says to what. Map that one: --map prompt=COLUMN",
        )
    messages = (*asked, *answer)
    check_turns(messages, name)
    return messages, unread


def _check_pair(messages: Sequence[Message], rejected: Sequence[Message]) -> None:
    """Require that both conversations differ in an answer first; equal ones are dropped later, and counted."""
    if tuple(messages) == tuple(rejected):
        return
    same = count_alike(messages, rejected)
    if same >= min(len(messages), len(rejected)) or messages[same].role != "assistant":
        raise Unusable(
            "different_prompts",
            "the chosen and the rejected answer do not follow the same prompt. Correct the row, or drop such rows with "
            "--on-error skip",
        )
