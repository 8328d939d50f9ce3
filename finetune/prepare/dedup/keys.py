"""What a row is recognised by: digests of its question and its answer, and the text that near-duplicates share."""

from __future__ import annotations

import hashlib
import re
import unicodedata

from finetune.records import Example

URL = re.compile(r"(?:https?://|www\.)\S+")
# Words, signed numbers and comparisons: what tells two short texts apart when punctuation and emphasis do not.
TOKEN = re.compile(r"[+\-−]?\d+(?:[.,]\d+)*|\w+|[<>=≤≥]")


def normalise(text: str) -> str:
    """Text without links, case and runs of blanks; the text itself where nothing else is left."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    if "://" in folded or "www." in folded:
        folded = URL.sub(" ", folded)
    return " ".join(folded.split()) or text


def compared_text(example: Example, context: str = "") -> str:
    """What near-duplicates are found by: what a classification asks, else all that is said, without instructions.

    A `context` that several questions share does not count: they are no repeats of each other.
    """
    turns = example.prompt if example.task == "classification" else example.messages
    text = "\n".join(turn.content for turn in turns if turn.role != "system")
    return text.replace(context, " ", 1) if context else text


def guarded_text(example: Example, context: str = "") -> str:
    """Where a changed figure makes another row of a near-duplicate: the question of questions and answers, however long
    the answer is; else all that is compared.
    """
    if example.task != "qa":
        return compared_text(example, context)
    text = "\n".join(turn.content for turn in example.prompt if turn.role != "system")
    return text.replace(context, " ", 1) if context else text


def context_group(context: str) -> str:
    """The group of all questions about one text, so that they share a split."""
    return f"context-{hashlib.sha256(normalise(context).encode()).hexdigest()[:16]}"


def question_digest(example: Example) -> bytes:
    """What a row asks, as SHA-256: two rows with equal digests must not lie in different splits.

    For classification punctuation is ignored too, since posts are copied with and without it. For chat and text the
    digest is that of the whole row: many conversations may rightly begin alike. An instruction in the system turn does
    not count, so that wording it anew moves no row.
    """
    asked = example.prompt if example.task in {"classification", "qa"} else example.messages
    text = normalise("\n".join(message.content for message in asked if message.role != "system"))
    if example.task == "classification":
        text = " ".join(TOKEN.findall(text)) or text
    return hashlib.sha256(text.encode()).digest()


def answer_digest(example: Example, question: bytes) -> bytes:
    """Eight bytes of SHA-256 over the answer; where the question's digest covers it, the first of those."""
    if example.task not in {"classification", "qa"}:
        return question[:8]
    return hashlib.sha256(normalise(example.answer).encode()).digest()[:8]
