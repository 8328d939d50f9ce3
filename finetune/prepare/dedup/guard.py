"""Digests of the figures, signs and negations in short texts: different guards keep similar short texts apart."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from finetune.prepare.dedup.keys import URL

# Letters and digits, about 66 words; not blanks and signs, in which copies differ. Up to here one figure may be all that a
# text is about, and the signature cannot see it: a changed word alters 5 of n-4 5-grams, and (n-9)/(n+1) is 0.8 and more
# from 49 words on.
SHORT = 330
_BLANKS_AND_SIGNS = bytes(n for n in range(128) if not chr(n).isalnum())

# Words that reverse a statement, and Roman numerals in either case ("type ii"), but not the pronoun I.
_WORDS = """
no not non never none nor neither without cannot except
zero one two three four five six seven eight nine ten eleven twelve half twice double triple
hundred thousand million billion first second third
more less fewer above below over under up down higher lower before after positive negative left right
rise rises rose risen rising fall falls fell fallen falling raise raises raised raising cut cuts cutting lowers lowered
increase increases increased increasing decrease decreases decreased decreasing gain gains gained lose loses lost
ii iii iv v vi vii viii ix x xi xii xiii xiv xv xvi xvii xviii xix xx xxi
"""
_SAYING = frozenset(_WORDS.split())
# A signed figure, a cashtag, signs of comparison, a contracted "not", C++ and C#, any word.
_PART = re.compile(
    r"(?<![\w.])[+\-−]\d+(?:[.,:/]\d+)*|\d+(?:[.,:/]\d+)*|\$[a-z]+|[<>≤≥=≠±↑↓]+|n['’]t\b|[^\W\d_]+(?:\+\++|#)(?!\w)|[^\W\d_]+?(?=n['’]t\b)|[^\W\d_]+"
)


def guard(texts: Sequence[str]) -> npt.NDArray[np.uint64]:
    """A digest, shape (rows,), of the figures, signs, cashtags and negations of each short text, in order.

    0 for texts of SHORT letters or more, and for short texts without any of these. Figures in links do not count.
    """
    return np.fromiter(map(_digest, texts), np.uint64, len(texts))


def _digest(text: str) -> int:
    if len(text) >= SHORT:
        encoded = text.encode("utf-8", "surrogatepass")
        signs = len(encoded) - len(encoded.translate(None, _BLANKS_AND_SIGNS))
        if len(text) - signs >= SHORT:
            return 0
    text = text.lower()
    if "http" in text or "www." in text:
        text = URL.sub(" ", text)
    # Most words are plain and do not matter: only the others are worth a regular expression.
    telling = " ".join([word for word in text.split() if word in _SAYING or not word.isalpha()])
    said = [part for part in _PART.findall(telling) if part in _SAYING or not part.isalpha()]
    if not said:
        return 0
    return int.from_bytes(hashlib.blake2b(" ".join(said).encode("utf-8", "surrogatepass"), digest_size=8).digest())
