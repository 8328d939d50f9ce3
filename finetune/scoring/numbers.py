"""The number in an answer, and whether it is that of the reference."""

from __future__ import annotations

import re
from decimal import Decimal

from finetune.scoring.metrics import answer_match

UNITS = {
    "%": Decimal("0.01"),
    "percent": Decimal("0.01"),
    "thousand": Decimal(10**3),
    "million": Decimal(10**6),
    "billion": Decimal(10**9),
    "trillion": Decimal(10**12),
}
# Neither part of a word or of another number, nor a dash between two of them: "2018-2019" has no negative number.
NUMBER = re.compile(
    r"(?<![\w.,])(?P<sign>[-−–+]?)\s*[$€£¥]?\s*(?P<digits>[0-9]+(?:,[0-9]{2,3})+(?:\.[0-9]+)?|[0-9]*\.[0-9]+|[0-9]+)"
    r"(?P<exponent>e[-+]?[0-9]{1,3})?(?![\w])\s*(?P<unit>%|(?:per ?cent|thousand|million|billion|trillion)\b)?",
    re.I,
)
BRACKETS = re.compile(r"[-−–]?\s*[$€£¥]?\s*\((?P<inside>[^()]*)\)\s*(?P<unit>%?)")
DECIMALS = 5  # to which FinQA's own evaluation rounds results before it compares them (Chen et al., 2021)


def match_numbers(reference: str, answer: str) -> float:
    """1 if the number in an answer is that of the reference, else 0.

    Both are rounded to five decimals, as in FinQA's own evaluation; 12.5% is 0.125 and 1.2 million is 1,200,000. A reference
    without a number, such as yes or no, is compared as words.
    """
    expected = read_number(reference) if is_number(reference) else None
    if expected is None:
        return answer_match(reference, answer)
    given = read_number(answer)
    return float(given is not None and round(given, DECIMALS) == round(expected, DECIMALS))


def read_number(text: str) -> float | None:
    """The number in a text: the whole text, or the last one in it; None if there is none.

    A text that is one number in brackets is negative, as in financial statements.
    """
    text = text.strip()
    if brackets := BRACKETS.fullmatch(text):
        inside = read_number(brackets["inside"] + brackets["unit"])
        return None if inside is None else -abs(inside)
    numbers = list(NUMBER.finditer(text))
    return _value(numbers[-1]) if numbers else None


def is_number(text: str) -> bool:
    """Whether a text is one number and nothing else."""
    text = text.strip().rstrip(".")
    if brackets := BRACKETS.fullmatch(text):
        text = (brackets["inside"] + brackets["unit"]).strip()
    return NUMBER.fullmatch(text) is not None


def _value(number: re.Match[str]) -> float:
    """A number with its sign and unit; in decimals, so that 9.371% is exactly 0.09371."""
    value = Decimal(number["digits"].replace(",", "") + (number["exponent"] or ""))
    unit = (number["unit"] or "").lower().replace(" ", "")
    return float(value * UNITS.get(unit, Decimal(1)) * (-1 if number["sign"] in set("-−–") else 1))
