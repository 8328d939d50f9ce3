"""A recogniser: the pattern that finds a kind of identifier, the check that confirms it, and what it goes by."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from finetune.scrub.span import Span

BEFORE, AFTER = 60, 24  # characters around a match that a check sees
Check = Callable[[str, str, str], bool]  # of the match, and of what stands before and after it

# Five digits, or three, with at most two other characters between them: cheap searches that spare most texts the dear ones.
FIVE_DIGITS = re.compile(r"\d(?:[^\d\n]{0,2}\d){4}")
THREE_DIGITS = re.compile(r"\d(?:[^\d\n]{0,2}\d){2}")
# What a telephone, a machine or a social security number has, in this order: one search instead of five.
NUMBER_HINT = re.compile(r"\d(?:(?<=[A-Za-z][A-Za-z]\d)\d|\d{3}[ -]?\d{4}|\d\d-\d\d-|(?<=\+\d)|\.\d{1,3}\.\d)")
# Scores.
CHECKED = 1.0  # the checksum is right
SHAPED = 0.8  # a strict shape
NAMED = 0.7  # words before it say what it is
LIKELY = 0.5  # a loose shape
GUESSED = 0.4  # a model says so: patterns cut from it what they find

AMOUNT_BEFORE = re.compile(r"(?:[$€£¥%]|\b(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|NOK|SEK|DKK|INR|CNY|by))\s{0,3}$", re.I)
AMOUNT_AFTER = re.compile(
    r"\s{0,3}(?:[$€£¥%]|(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|NOK|SEK|DKK|INR|CNY|dollars?|euros?|pounds?|francs?|yen|kron[aeo]r?"
    r"|rupees?|shares?|units?|percent|per cent|basis points?|tonnes?|barrels?|ounces?)\b)",
    re.I,
)


def accept(text: str, before: str, after: str) -> bool:
    """The check of a recogniser whose pattern is enough."""
    return True


@dataclass(frozen=True)
class Recogniser:
    """How one kind of identifier is found.

    The span is the group `value` of the pattern, if it has one, else the whole match, of which `length` keeps the first
    characters. A text is searched only if it has a digit (unless `digits` is false), one of the lower-case `signs` and a
    match of `hint`. A `broad` recogniser also takes what public texts are full of: dates, places, links.

    A pattern has no repetition inside an unbounded repetition, so that the time to search grows with the length of a text.
    """

    name: str
    entity: str
    pattern: re.Pattern[str]
    reason: str
    score: float = SHAPED
    check: Check = accept
    length: Callable[[str], int] = len
    signs: tuple[str, ...] = ()
    hint: re.Pattern[str] | None = None
    digits: bool = True
    broad: bool = False

    def find(self, text: str) -> Iterator[Span]:
        """The spans in a text."""
        group = "value" if "value" in self.pattern.groupindex else 0
        for match in self.pattern.finditer(text):
            start = match.start(group)
            end = start + self.length(match[group])
            if end > start and self.check(
                text[start:end], text[max(start - BEFORE, 0) : start], text[end : end + AFTER]
            ):
                yield Span(self.entity, start, end, self.score, self.name, self.reason)

    def confirms(self, value: str) -> bool:
        """Whether a value would be found as a whole, alone or behind one of the signs."""
        texts = (value, *(f"{sign} {value}" for sign in self.signs))
        return any(text[span.start : span.end] == value for text in texts for span in self.find(text))


def is_amount(before: str, after: str) -> bool:
    """Whether a number between two texts is an amount of something."""
    return bool(AMOUNT_BEFORE.search(before) or AMOUNT_AFTER.match(after))


def is_no_amount(text: str, before: str, after: str) -> bool:
    """The check of a number that is not an amount of something."""
    return not is_amount(before, after)


def digits_of(text: str) -> str:
    """The ASCII digits of a text."""
    return "".join(char for char in text if char in "0123456789")


def compact(text: str) -> str:
    """The letters and digits of a text, in upper case."""
    return "".join(filter(str.isalnum, text)).upper()


# What stands between the words that name a number and the number itself.
LINK = r"(?:\s{0,2}(?:\b(?:is|was|are|ending|numbers?|no|num|nr|id|code|called)\b|[:#=.(№–-])){0,4}\s{0,3}"
CODE = r"(?=[A-Za-z./-]{0,12}\d)[A-Za-z0-9](?:[A-Za-z0-9]|[./-](?=[A-Za-z0-9])){2,39}"  # letters and a digit


def after_words(words: str, value: str = CODE) -> re.Pattern[str]:
    """A pattern for a value that stands behind one of some words, which may be written in any case."""
    return re.compile(rf"(?<!\w)(?i:{words})(?!\w){LINK}(?P<value>{value})(?!\w)", re.A if value == CODE else 0)


def has_digits(least: int) -> Check:
    """The check that a value has so many digits and is no amount."""

    def check(text: str, before: str, after: str) -> bool:
        return len(digits_of(text)) >= least and not is_amount(before, after)

    return check
