"""Word n-grams as 64-bit hashes: the same for a text in every process, on every machine and in any formatting.

Words are what remains of a text after NFKC, case folding and removal of punctuation, links, @mentions, the # of
hashtags and $TICKERS. In scripts without spaces between words, each character counts as a word.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from hashlib import blake2b
from itertools import chain

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Numbers = NDArray[np.int64]

GRAM = 13  # words; the norm since GPT-3 (arXiv 2005.14165, appendix C); FineMath is cleaned with it too
# A text of 8 to 12 words is one n-gram of its own length; 8 is GPT-3's lower bound. Below it, a match inside a longer
# text says little: of 38 questions of 5 to 7 words found inside other MedQuAD questions, 35 were the start of a different
# one ("What are the symptoms of Cataract" in "… of Cataract, total congenital").
SHORTEST_GRAM = 8
# Tickers are ignored if at least this many words remain. "$SAN: Deutsche Bank cuts to Hold" loses its subject with the
# ticker: of the 59 validation tweets of TFNS found through this rule, 2 were of this kind, both of exactly 5 words; with
# fewer words, only the template is left.
SPECIFIC_WORDS = 5

LINK = re.compile(r"(?:https?://|www\.)\S+")
MENTION = re.compile(r"(?<!\w)@\w+")
TICKER = re.compile(r"(?<!\w)\$[a-z]{1,6}(?:\.[a-z]{1,2})?(?!\w)")
# Lower-case letters and digits; other ASCII is a blank. `str.translate` and `split` take a third of a pattern's time.
ASCII = "".join(char.lower() if char.isalnum() else " " for char in map(chr, range(128)))
# Thai, Lao, Burmese, Khmer, kana and Chinese characters.
UNSPACED = (
    r"\u0e01-\u0e5b\u0e81-\u0edf\u1000-\u109f\u1780-\u17e9\u3041-\u3096\u30a1-\u30fa"
    r"\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
WORD = re.compile(rf"[{UNSPACED}]|[^\W_{UNSPACED}]+")

BASE = np.uint64(0xD1342543DE82EF95)  # odd, 5 modulo 8: a full-period multiplier modulo 2^64
LENGTH = np.uint64(0x9E3779B97F4A7C15)  # keeps whole texts of different lengths apart
CACHED_WORDS, CACHED_LENGTH = 200_000, 40  # about 30 MB per process


@dataclass(frozen=True, eq=False)
class HashedTexts:
    """Concatenated texts: `words` (all words,) are hashes; text i is `words[starts[i]:ends[i]]`."""

    words: Keys
    starts: Numbers
    ends: Numbers

    @property
    def counts(self) -> Numbers:
        """Words of each text, (texts,)."""
        return self.ends - self.starts


class _WordHashes(dict[str, int]):
    """A cache of word hashes; looking up a word adds it. Python's own hash() differs between processes."""

    def __missing__(self, word: str) -> int:
        value = int.from_bytes(blake2b(word.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")
        if len(word) <= CACHED_LENGTH:
            if len(self) >= CACHED_WORDS:
                self.clear()
            self[word] = value
        return value


_hashes = _WordHashes()


def split_words(text: str) -> list[str]:
    """The words of a text that count when texts are compared."""
    text = text.lower() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    if "://" in text or "www." in text:
        text = LINK.sub(" ", text)
    if "@" in text:
        text = MENTION.sub(" ", text.removeprefix("rt "))
    if "$" in text:
        words = _plain_words(TICKER.sub(" ", text))
        if len(words) >= SPECIFIC_WORDS:
            return words
    return _plain_words(text)


def _plain_words(text: str) -> list[str]:
    return text.translate(ASCII).split() if text.isascii() else WORD.findall(text)


def hash_texts(texts: Sequence[str]) -> HashedTexts:
    """Split and hash texts."""
    split = [split_words(text) for text in texts]
    counts = np.fromiter(map(len, split), np.int64, len(split))
    ends = np.cumsum(counts)
    total = int(ends[-1]) if len(split) else 0
    words = np.fromiter(map(_hashes.__getitem__, chain.from_iterable(split)), np.uint64, total)
    return HashedTexts(words, ends - counts, ends)


def rolling_grams(words: Keys) -> Iterator[tuple[int, Keys]]:
    """(length, keys) for each length from `SHORTEST_GRAM` to `GRAM`; key i is of the gram that starts at word i.

    N-grams may span the ends of texts: the caller filters these out.
    """
    keys = words.copy()
    for length in range(2, GRAM + 1):
        keys = keys[:-1] * BASE + words[length - 1 :]
        if length >= SHORTEST_GRAM:
            yield length, keys


def whole_keys(texts: HashedTexts) -> Keys:
    """One key per text for all of its words, (texts,); 0 for texts without words."""
    counts = texts.counts
    keys = np.zeros(len(counts), np.uint64)
    filled = np.flatnonzero(counts)
    if not len(filled):
        return keys
    weights = np.cumprod(np.full(int(counts.max()), BASE, np.uint64))
    positions = np.arange(len(texts.words)) - np.repeat(texts.starts, counts)
    sums = np.add.reduceat(texts.words * weights[positions], texts.starts[filled])
    keys[filled] = sums + counts[filled].astype(np.uint64) * LENGTH
    return keys
