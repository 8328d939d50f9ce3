"""Exact duplicates after normalisation, within a split and across splits; the test set keeps its rows."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from finetune.records import Drop, Example, Split

URL = re.compile(r"(?:https?://|www\.)\S+")
# Words, signed numbers and comparisons: what tells two short texts apart when punctuation and emphasis do not.
TOKEN = re.compile(r"[+\-−]?\d+(?:[.,]\d+)*|\w+|[<>=≤≥]")
PRIORITY: tuple[Split, ...] = ("test", "validation", "train")


@dataclass(frozen=True, slots=True)
class Placed:
    """A row, its split and its `question_key`; `official` rows are of a published test set and must all stay."""

    example: Example
    split: Split
    key: str
    official: bool = False


def normalise(text: str) -> str:
    """Text without links, case and runs of blanks; the text itself where nothing else is left."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(URL.sub(" ", folded).split()) or text


def question_key(example: Example) -> str:
    """What a row asks, as a digest: two rows with equal keys must not lie in different splits.

    For classification punctuation is ignored too, since posts are copied with and without it. For chat and text the key
    is that of the whole row: many conversations may rightly begin alike. An instruction in the system turn does not
    count, so that wording it anew moves no row.
    """
    asked = example.prompt if example.task in {"classification", "qa"} else example.messages
    text = normalise("\n".join(message.content for message in asked if message.role != "system"))
    if example.task == "classification":
        text = " ".join(TOKEN.findall(text)) or text
    return _digest(text)


def drop_duplicates(rows: Sequence[Placed]) -> tuple[list[Placed], list[Drop]]:
    """Keep the first of equal rows; of those in several splits, test before validation before train.

    Reasons: `duplicate`; `conflicting_label`, the same text with another label; `in_test` and `in_validation`, the same
    question in a split that is measured on.
    """
    kept: set[str] = set()
    drops: dict[str, Drop] = {}
    home: dict[str, tuple[Split, str]] = {}  # question -> its split, the first answer
    seen: set[tuple[str, str]] = set()
    for row in sorted(rows, key=lambda row: PRIORITY.index(row.split)):
        answer = _digest(normalise(row.example.answer))
        reason = None if row.official else _reason(row, answer, home, seen)
        if reason is None:
            kept.add(row.example.id)
        else:
            drops[row.example.id] = Drop(row.example.id, "dedup", reason)
        home.setdefault(row.key, (row.split, answer))
        seen.add((row.key, answer))
    in_order = [row.example.id for row in rows]
    return [row for row in rows if row.example.id in kept], [drops[name] for name in in_order if name in drops]


def _reason(row: Placed, answer: str, home: dict[str, tuple[Split, str]], seen: set[tuple[str, str]]) -> str | None:
    if row.key not in home:
        return None
    split, first_answer = home[row.key]
    if split != row.split:
        return f"in_{split}"
    if row.example.task == "classification":
        return "duplicate" if answer == first_answer else "conflicting_label"
    return "duplicate" if (row.key, answer) in seen else None


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
