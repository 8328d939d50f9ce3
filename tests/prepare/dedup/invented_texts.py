"""Invented documents, and copies of them with some words changed."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

VOCABULARY = 3000


def texts(count: int, *, seed: int, words: int = 100) -> list[str]:
    """Documents of `words` words whose frequencies fall like those of a language."""
    draw = np.random.default_rng(seed)
    share = 1 / np.arange(1, VOCABULARY + 1)
    ranks = draw.choice(VOCABULARY, (count, words), p=share / share.sum())
    return [" ".join(map(_word, row)) for row in ranks.tolist()]


def edited(originals: Sequence[str], *, changes: int, seed: int) -> list[str]:
    """Copies, each with `changes` words replaced by ones that occur nowhere else."""
    draw = np.random.default_rng(seed)
    copies = []
    for number, text in enumerate(originals):
        words = text.split()
        for place in draw.choice(len(words), changes, replace=False).tolist():
            words[place] = f"{_word(place)}{_word(number)}q"
        copies.append(" ".join(words))
    return copies


def _word(number: int) -> str:
    syllables = [a + b for a in "bdfgklmnprstvz" for b in "aeiou"]
    word = ""
    number += 1
    while number:
        number, place = divmod(number, len(syllables))
        word += syllables[place]
    return word
