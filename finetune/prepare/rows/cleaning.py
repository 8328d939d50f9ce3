"""Cleans the columns of a row, each to its degree, before they become messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any

from finetune.errors import Unusable
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.text import Changes, clean_lightly, clean_text
from finetune.prepare.formats.files import Row
from finetune.prepare.rows.columns import NAMES, Values, map_columns
from finetune.records import Cleaning

PROSE = frozenset({"text"})  # all other columns become turns of a chat, where characters are content
CODE_ENDS = frozenset({"messages", "conversations", "prompt", "completion", "output"})  # may end with a line break
SPOKEN = frozenset({"content", "value", "text"})  # keys of a turn
DEPTH = 6  # of lists and objects inside a column

# Texts of forums and web pages: paragraphs around everything, or breaks inside, but no tag of a page or an application.
WRAPPED = re.compile(
    r"\s*<(?:p|div|ul|ol|blockquote|pre|h[1-6])\b[^<>]*>.*</(?:p|div|ul|ol|blockquote|pre)>\s*", re.S | re.I
)
PROSE_TAG = re.compile(r"<(?:p|br)\b[^<>]*>", re.I)
PAGE_TAG = re.compile(
    r"<(?:!doctype|html|head|body|form|input|button|script|style|svg|nav|header|footer|main|section)\b", re.I
)
ANY_TAG = re.compile(r"<[^<>]*>")
ABOUT_MARKUP = re.compile(r"\b(?:x?html\d?|xml|jsx|css|svg|markup|markdown|tags?|web ?pages?|elements?|react)\b", re.I)
MOST_ABOUT_MARKUP = 0.25  # a larger share of such rows makes markup the subject of a file


def choose_degrees(
    columns: Iterable[str], clean: Cleaning, wrapped: frozenset[str] = frozenset()
) -> dict[str, Cleaning]:
    """The degree to which each column is cleaned; names such as labels and ids are cleaned when they are read."""
    turn: Cleaning = "light" if clean == "full" else clean
    return {name: clean if name in PROSE | wrapped else turn for name in sorted({*columns} - NAMES)}


def clean_columns(columns: Values, degrees: Mapping[str, Cleaning], changes: Changes) -> dict[str, Any]:
    """The columns with clean texts, also in lists and objects; `changes` receives the kinds of changes.

    Raises:
        Unusable: a text contains half of a surrogate pair.
    """
    cleaned = dict(columns)
    for name, degree in degrees.items():
        if name not in columns:
            continue
        try:
            cleaned[name] = _clean(columns[name], degree, name in CODE_ENDS, changes)
        except UnicodeEncodeError:
            raise Unusable(
                "broken_unicode", f"the column {name!r} contains half of a surrogate pair. Save the file again as UTF-8"
            ) from None
    return cleaned


def clean_to(degree: Cleaning, text: str, changes: Changes) -> str:
    """A text without markup around it, cleaned to a degree.

    Raises:
        UnicodeEncodeError: see `clean_text`.
    """
    if degree == "full":
        plain = strip_markup(text)
        if plain != text:
            changes.add("markup removed")
        return clean_text(plain, changes)
    if degree == "light":
        return clean_lightly(text, changes)
    text.encode()
    return text


def _clean(value: Any, degree: Cleaning, code_ends: bool, changes: Changes, depth: int = DEPTH) -> Any:
    if isinstance(value, str):
        text = clean_to(degree, value, changes)
        return text if code_ends or degree == "none" else text.rstrip("\n")
    if depth and isinstance(value, list):
        return [_clean(part, degree, code_ends, changes, depth - 1) for part in value]
    if depth and isinstance(value, Mapping):
        return {key: _clean(part, degree, code_ends, changes, depth - 1) for key, part in value.items()}
    return value


# --- markup that most rows have ---------------------------------------------------------------------------------------


def find_wrapped(rows: Sequence[Row], mapping: Mapping[str, str], names: Collection[str]) -> frozenset[str]:
    """The columns whose texts are wrapped in markup in most rows, as in dumps of forums.

    A file whose rows speak of markup has none: there, tags are what the answers are about.
    """
    texts: dict[str, list[str]] = {name: [] for name in names}
    spoken = []
    for row in rows:
        with suppress(Unusable):
            columns = map_columns(row.values, mapping)
            spoken.append([text for name in names for text in _texts(columns.get(name))])
            for name in names:
                texts[name] += _texts(columns.get(name))
    wrapped = frozenset(name for name, part in texts.items() if 2 * sum(map(_is_wrapped, part)) > len(part))
    about = sum(any(map(_is_about_markup, row)) for row in spoken) if wrapped else 0
    return wrapped if about <= MOST_ABOUT_MARKUP * len(rows) else frozenset()


def _texts(value: Any, depth: int = DEPTH) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif depth and isinstance(value, list):
        for part in value:
            yield from _texts(part, depth - 1)
    elif depth and isinstance(value, Mapping):
        for key, part in value.items():
            if key in SPOKEN:
                yield from _texts(part, depth - 1)


def _is_wrapped(text: str) -> bool:
    if "<" not in text or PAGE_TAG.search(text):
        return False
    return bool(PROSE_TAG.search(text) and WRAPPED.fullmatch(text)) or bool(re.search(r"<br\s*/?>", text, re.I))


def _is_about_markup(text: str) -> bool:
    return bool(ABOUT_MARKUP.search(ANY_TAG.sub(" ", text)))
