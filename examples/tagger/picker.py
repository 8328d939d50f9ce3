"""Random choices: of texts and entries of lists, of digits, and of words that nobody has heard."""

from __future__ import annotations

import string
from random import Random

from words import CONSONANTS, LISTS, VOWELS, read_list


class Picker:
    """Choices from one generator of random numbers."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lists = {path.stem: read_list(path.stem) for path in sorted(LISTS.glob("*.txt"))}

    def one(self, name: str) -> str:
        """An entry of a list."""
        return self.random.choice(self.lists[name])

    def of(self, *choices: str) -> str:
        """One of some texts."""
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return self.random.random() < share

    def count(self, most: int) -> int:
        """A number from 1."""
        return self.random.randint(1, most)

    def digits(self, pattern: str) -> str:
        """The pattern with a digit for each 9 and a capital for each A."""
        pick = self.random.choice
        return "".join(
            pick("0123456789") if c == "9" else pick(string.ascii_uppercase) if c == "A" else c for c in pattern
        )

    def invented(self, ends: list[str]) -> str:
        """A word that nobody has heard, with one of some endings."""
        syllables = [
            self.random.choice(CONSONANTS) + self.random.choice(VOWELS) for _ in range(self.random.choice((1, 1, 2)))
        ]
        stem = "".join(syllables) + self.random.choice(CONSONANTS)
        return (stem + self.random.choice(ends)).capitalize()
