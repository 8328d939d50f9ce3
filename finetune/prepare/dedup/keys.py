"""The keys of a row: digests of its question and answer, and the text that is compared for near-duplicates."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from finetune.records import Example, Message

# Tasks whose rows may ask the same and be answered differently.
ASKING = frozenset({"classification", "qa", "summarization", "translation", "code", "preference"})
URL = re.compile(r"(?:https?://|www\.)\S+")
EMOTICON = r"[:;=][-o'^]?[)(\[\]{}|]|(?<!\w)[:;=][-o'^]?[/\\dpox3*@$](?!\w)|<[/\\]?3(?!\w)|\^_*\^"
# Punctuation, marks of emphasis, and variants of emoji: what two copies of a text may differ in.
PLAIN = r"""\s.,;:!?¿¡'"`´«»()\[\]{}|/\\_*#+~^@&·®©\-\u200b-\u2027\u2032-\u2060\u3001-\u3011\ufe0e\ufe0f\ufeff🏻-🏿"""
# What tells two short texts apart: emoticons, figures, words (C++, C#, A*), a question mark, and any other sign: emoji,
# currencies, comparisons, the vowel signs of Indic scripts.
TOKEN = re.compile(rf"[+\-−]?\d+(?:[.,:/]\d+)*|\w+(?:[+#*]+(?!\w))?|{EMOTICON}|\?(?!\?)|[^\w{PLAIN}]")


def normalise(text: str) -> str:
    """Text without links, case and repeated white space; the text itself if nothing would be left."""
    folded = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    if "://" in folded or "www." in folded:
        folded = URL.sub(" ", folded)
    return " ".join(folded.split()) or text


def compared_text(example: Example, context: str = "") -> str:
    """The text compared for near-duplicates: the question of a classification, else every turn, without instructions.

    A `context` that several questions share does not count: questions about it are not duplicates of each other.
    """
    text = _spoken(example.prompt if example.task == "classification" else example.turns)
    return text.replace(context, " ", 1) if context else text


def asked_text(example: Example, context: str = "") -> str:
    """The text of a question in which a changed figure means a different row, however long its answer is."""
    text = _spoken(example.prompt)
    return text.replace(context, " ", 1) if context else text


def context_group(context: str) -> str:
    """The group of all questions about one text, which share a split."""
    return f"context-{hashlib.sha256(normalise(context).encode()).hexdigest()[:16]}"


def question_digest(example: Example) -> bytes:
    """SHA-256 of the question of a row: two rows with equal digests must not be in different splits.

    For classification, punctuation is ignored too (see `TOKEN`): posts are copied with and without it. For chat and text, the
    digest covers the whole row: many conversations may legitimately begin alike. The system message does not count, so
    rewording an instruction does not move rows.
    """
    text = normalise(_spoken(example.prompt if example.task in ASKING else example.messages))
    if example.task == "classification":
        text = _tokens(text.split()) or text
    return hashlib.sha256(text.encode()).digest()


def wording(example: Example) -> str:
    """What rows with one question must share for their different labels, or preferences, to be a conflict; "" if none are.

    For classification, the capitalised words and the links of the question, which its digest ignores; in preference tuning,
    the answers in any order.
    """
    if example.task == "preference":
        return "\n".join(sorted(_answers(example)))
    if example.task != "classification":
        return ""
    text = _spoken(example.prompt)
    if "/" in text or "www." in text:
        return _tokens([word for word in text.split() if word != word.lower() or "/" in word or "www." in word])
    return _tokens([word for word in text.split() if word != word.lower()])


def _spoken(turns: Iterable[Message]) -> str:
    """The turns without instructions."""
    return "\n".join([turn.text if turn.tool_calls else turn.content for turn in turns if turn.role != "system"])


def _tokens(words: Iterable[str]) -> str:
    """The tokens of the words: most words consist of letters, and are one, also before a punctuation mark."""
    tokens: list[str] = []
    for word in words:
        if word.isalpha():
            tokens.append(word)
        elif word[-1] in ".,!" and word[:-1].isalpha():
            tokens.append(word[:-1])
        else:
            tokens += TOKEN.findall(word)
    return " ".join(tokens)


def answer_digest(example: Example, question: bytes) -> bytes:
    """Eight bytes of SHA-256 of the answer; if the digest of the question covers it, the first eight bytes of that."""
    if example.task not in ASKING:
        return question[:8]
    text = normalise(example.answer)
    if example.task == "preference":
        text = "\n".join([example.label or "", *_answers(example)])
    return hashlib.sha256(text.encode()).digest()[:8]


def _answers(example: Example) -> list[str]:
    """What follows the prompt: the answer or, of a pair, the chosen and the rejected one."""
    start = len(example.prompt)
    return [normalise("\n".join(turn.text for turn in messages[start:])) for messages in example.conversations]
