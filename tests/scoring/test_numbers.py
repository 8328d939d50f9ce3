"""The number in an answer, however it is written."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.scoring.numbers import is_number, match_numbers, read_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("405", 405),
        ("$ 1,496.5", 1496.5),
        ("12,34,567", 1234567),
        ("-3.25", -3.25),
        ("−3.25", -3.25),
        ("(1,234)", -1234),
        ("$(12.5)", -12.5),
        ("(12.5%)", -0.125),
        ("(12.5)%", -0.125),
        ("9.371%", 0.09371),
        ("5 per cent", 0.05),
        ("1.2 million", 1_200_000),
        ("EUR 3 billion", 3e9),
        (".5", 0.5),
        ("1.5e3", 1500),
        ("It rose to 12.", 12),
        ("from 2018-2019", 2019),
        ("from 10 to 12.5 percent", 0.125),
        ("It fell by (5) a share.", 5),
    ],
)
def test_number_of_a_text(text: str, number: float) -> None:
    assert read_number(text) == number


@pytest.mark.parametrize("text", ["", "none", "Q4", "the year before", "()", "v1.2b", "- - -"])
def test_text_without_a_number_has_none(text: str) -> None:
    assert read_number(text) is None
    assert match_numbers("4", text) == 0


@pytest.mark.parametrize(
    ("reference", "answer", "score"),
    [
        ("0.09371", "9.371%", 1),
        ("0.09371", "9.37%", 0),  # five decimals, as the data set's own evaluation
        ("0.33333", "0.333333333", 1),
        ("-4", "(4)", 1),
        ("-4", "4", 0),
        ("1,200,000", "1.2 million", 1),
        ("93.5%", "93.5", 0),
        ("yes", "Yes.", 1),
        ("yes", "no", 0),
        ("the 2019 fleet", "fleet 2019", 0),
        ("the 2019 fleet", "The 2019 fleet", 1),
        ("405.0", "The answer is 405", 1),
    ],
)
def test_answer_is_right_if_its_number_is_that_of_the_reference(reference: str, answer: str, score: float) -> None:
    assert match_numbers(reference, answer) == score


@given(st.floats(-1e9, 1e9).map(lambda number: round(number, 5)))
def test_a_number_is_read_as_it_is_written(number: float) -> None:
    assert read_number(f"{number:,.5f}") == number
    assert is_number(f"{number:,.5f}")
    assert match_numbers(str(number), f"{number:,.5f}") == 1


@given(st.text())
def test_no_text_is_an_error(text: str) -> None:
    match_numbers(text, text)
