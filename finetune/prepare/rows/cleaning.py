"""Cleans the columns of a row, each to its degree, before they become messages."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal

from finetune.errors import Unusable
from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.text import Changes, clean_lightly, clean_text, is_plain, mend_mojibake
from finetune.prepare.rows.columns import NAMES, Values
from finetune.records import Cleaning

Degree = Cleaning | Literal["mended"]  # mended: lightly, after mojibake is decoded again
# All other columns become turns of a chat, where characters are content.
PROSE = frozenset(
    {"text", "text_pair", "sentence1", "sentence2", "premise", "hypothesis", "question1", "question2", "sentence"}
)
DATA = frozenset({"tools", "arguments", "input"})  # columns and keys of turns with JSON, whose characters are data
CODE_ENDS = frozenset(  # may end with a line break
    {"messages", "conversations", "prompt", "completion", "output", "chosen", "rejected"}
)
SPOKEN = frozenset({"content", "value", "text"})  # keys of a turn
UNCHANGED = DATA | {"role", "from"}  # keys whose values are not cleaned
DEPTH = 6  # of lists and objects inside a column

# Texts of forums and web pages: paragraphs around everything, or breaks inside, but no tag of a page or an application.
WRAPPED = re.compile(
    r"\s*<(?:p|div|ul|ol|blockquote|pre|h[1-6])\b[^<>]*>.*</(?:p|div|ul|ol|blockquote|pre)>\s*", re.S | re.I
)
BREAK = re.compile(r"<br\s*/?>", re.I)
PAGE_TAG = re.compile(
    r"<(?:!doctype|html|head|body|form|input|button|script|style|svg|nav|header|footer|main|section)\b", re.I
)
MIN_WORDS = 4  # of a text in markup; an exercise in markup has fewer, or more tags than words
ANY_TAG = re.compile(r"<[^<>]*>")
ABOUT_MARKUP = re.compile(
    r"\b(?:x?html\d?|xml|jsx|css|svg|markup|markdown|tags?|web ?pages?|elements?|react"
    r"|encodings?|unicode|utf-?8|mojibake|garbled|ascii)\b",
    re.I,
)
MOST_ABOUT_MARKUP = 0.25  # a larger share of such rows makes markup the subject of a file


def choose_degrees(columns: Iterable[str], clean: Cleaning) -> dict[str, Degree]:
    """The degree to which each column is cleaned; names such as labels and ids are cleaned when they are read."""
    turn: Cleaning = "light" if clean == "full" else clean
    return {name: clean if name in PROSE else turn for name in sorted({*columns} - NAMES - {"tools"})}


def clean_columns(columns: Values, degrees: Mapping[str, Degree], changes: Changes) -> dict[str, Any]:
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


def clean_to(degree: Degree, text: str, changes: Changes) -> str:
    """A text without markup around it, cleaned to a degree.

    Raises:
        UnicodeEncodeError: see `clean_text`.
    """
    if degree == "full":
        plain = strip_markup(text)
        if plain != text:
            changes.add("markup removed")
        return clean_text(plain, changes)
    if degree == "mended":
        text = mend_mojibake(text, changes)
    if degree != "none":
        return clean_lightly(text, changes)
    text.encode()
    return text


def _clean(value: Any, degree: Degree, code_ends: bool, changes: Changes, depth: int = DEPTH) -> Any:
    if isinstance(value, str):
        if degree != "full" and is_plain(value):
            return value
        text = clean_to(degree, value, changes)
        return text if code_ends or degree == "none" else text.rstrip("\n")
    if depth and isinstance(value, list):
        return [_clean(part, degree, code_ends, changes, depth - 1) for part in value]
    if depth and isinstance(value, dict):
        return {
            key: part if key in UNCHANGED else _clean(part, degree, code_ends, changes, depth - 1)
            for key, part in value.items()
        }
    return value


# --- what most rows have ----------------------------------------------------------------------------------------------


def survey_texts(rows: Sequence[Values], names: Collection[str]) -> dict[str, Degree]:
    """The columns to clean further, since most of their texts are wrapped in markup or are mojibake, as in bad dumps.

    A file whose rows speak of markup or encodings has none: there, tags are what the answers are about.
    """
    texts: dict[str, list[str]] = {name: [] for name in names}
    spoken = []
    for row in rows:
        spoken.append([text for name in names for text in _texts(row.get(name))])
        for name in names:
            texts[name] += _texts(row.get(name))
    degrees: dict[str, Degree] = {name: "mended" for name, part in sorted(texts.items()) if _are_mojibake(part)}
    degrees |= {name: "full" for name, part in sorted(texts.items()) if 2 * sum(map(_is_wrapped, part)) > len(part)}
    subject = sum(any(map(_is_about_markup, row)) for row in spoken) if degrees else 0
    return degrees if subject <= MOST_ABOUT_MARKUP * len(rows) else {}


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
    if "<" not in text or PAGE_TAG.search(text) or not (WRAPPED.fullmatch(text) or BREAK.search(text)):
        return False
    words = len(ANY_TAG.sub(" ", text).split())
    return words >= max(MIN_WORDS, len(ANY_TAG.findall(text)))


def _are_mojibake(texts: Iterable[str]) -> bool:
    """Whether most texts with characters beyond ASCII were decoded wrongly."""
    odd = [text for text in texts if not text.isascii()]
    return bool(odd) and 2 * sum(mend_mojibake(text, set()) != text for text in odd) > len(odd)


def _is_about_markup(text: str) -> bool:
    return bool(ABOUT_MARKUP.search(ANY_TAG.sub(" ", text)))
