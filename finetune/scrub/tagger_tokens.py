"""What the tagger of this project reads and says: tokens with their kind of writing, and labels that become spans."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from tokenizers import Encoding

Floats = NDArray[np.float32]

ENTITIES = ("NAME", "LOCATION", "ADDRESS", "ORGANISATION")
LABELS = ("O", *(f"{side}-{entity}" for entity in ENTITIES for side in "BI"))
WINDOW, OVERLAP = 128, 32  # tokens, without the first and the last special one
# The base model reads small letters only and no line breaks; token types tell it what they hide: 0 small, 1 one capital at
# the beginning of the word, 2 capitals alone; 3 more at the beginning of a line.
TYPES = 6
LINE = 3
WORD = re.compile(r"\w+")


@dataclass(frozen=True)
class Tokens:
    """The tokens of a text: ids, types, first and last character (exclusive), and the number of the word of each."""

    ids: list[int]
    types: list[int]
    offsets: list[tuple[int, int]]
    words: list[int]


def read_tokens(text: str, encoding: Encoding) -> Tokens:
    """The tokens of a text that was encoded without special tokens.

    A word consists of letters and digits; every other character is a word of its own.
    """
    words = list(WORD.finditer(text))
    types: list[int] = []
    numbers: list[int] = []
    at = 0
    end_before, number = 0, -1
    for start, end in encoding.offsets:
        while at < len(words) and words[at].end() <= start:
            at += 1
        inside = at < len(words) and words[at].start() <= start
        begins = not inside or words[at].start() == start or not numbers or end_before <= words[at].start()
        number += begins
        numbers.append(number)
        is_first = not types or "\n" in text[end_before:start]
        types.append((_writing(words[at][0]) if inside else 0) + LINE * is_first)
        end_before = end
    return Tokens(list(encoding.ids), types, list(encoding.offsets), numbers)


def _writing(word: str) -> int:
    if not word[0].isupper():
        return 0
    return 2 if len(word) > 1 and word.isupper() else 1


def windows(count: int) -> Iterator[tuple[int, int]]:
    """The first token and the one after the last of each window over a text of `count` tokens."""
    start = 0
    while True:
        end = min(start + WINDOW, count)
        yield start, end
        if end >= count:
            return
        start = end - OVERLAP


def joined(parts: Sequence[tuple[int, int, Floats]]) -> Floats:
    """The scores of all tokens, (tokens, labels), from windows that overlap: each half of an overlap is the nearer one's."""
    rows = []
    for before, (start, end, scores), after in zip([None, *parts], parts, [*parts[1:], None], strict=False):
        first = start if before is None else start + (before[1] - start) // 2
        last = end if after is None else after[0] + (end - after[0]) // 2
        rows.append(scores[first - start : last - start])
    return np.concatenate(rows)


def find_spans(tokens: Tokens, scores: Floats, bias: float) -> Iterator[tuple[int, int, str, float]]:
    """The spans that logits of the labels, (tokens, labels), say: first character, the one after the last, kind, probability.

    A word is what the mean of its tokens says; `bias` is taken off the logit of "no entity", so that more is found.
    """
    if not tokens.ids:
        return
    logits = scores.astype(np.float64)
    logits[:, 0] -= bias
    chances = np.exp(logits - logits.max(-1, keepdims=True))
    chances /= chances.sum(-1, keepdims=True)
    starts = [0, *(at for at, (one, other) in enumerate(pairwise(tokens.words), 1) if one != other), len(tokens.words)]
    open_span: list[Any] | None = None
    for first, end in pairwise(starts):
        mean = chances[first:end].mean(0)
        kinds = np.array([mean[0], *(mean[1::2] + mean[2::2])])
        kind = int(kinds.argmax())
        begins = chances[first, 2 * kind - 1] > chances[first, 2 * kind] if kind else False
        if open_span is not None and (kind != open_span[2] or begins):
            yield _span(open_span)
            open_span = None
        if kind:
            begin, last = tokens.offsets[first][0], tokens.offsets[end - 1][1]
            open_span = open_span or [begin, last, kind, []]
            open_span[1] = last
            open_span[3].append(kinds[kind])
    if open_span is not None:
        yield _span(open_span)


def _span(parts: list[Any]) -> tuple[int, int, str, float]:
    start, end, kind, chances = parts
    return start, end, ENTITIES[kind - 1], float(np.mean(chances))
