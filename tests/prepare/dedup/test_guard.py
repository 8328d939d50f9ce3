"""Guards: short texts that say another figure, or the opposite, are no near-duplicates."""

from __future__ import annotations

import numpy as np
import pytest

from finetune.prepare.dedup.guard import SHORT, guard


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Acme raises its dividend by 3 %", "Acme raises its dividend by 4 %"),
        ("symptoms of type 1 diabetes", "symptoms of type 2 diabetes"),
        ("symptoms of type II diabetes", "symptoms of type III diabetes"),
        ("type i hypersensitivity", "type iv hypersensitivity"),
        ("factor V deficiency", "factor X deficiency"),
        ("revenue of 1.5 million", "revenue of 15 million"),
        ("from 3 to 4", "from 4 to 3"),
        ("change of -3 %", "change of +3 %"),
        ("fever < 38", "fever > 38"),
        ("do take it with food", "do not take it with food"),
        ("you can take it", "you can't take it"),
        ("you do take it", "you don’t take it"),
        ("two tablets a day", "three tablets a day"),
        ("$AAPL cut to hold", "$MSFT cut to hold"),
        ("shares up today", "shares down today"),
        ("due 2024-01-05", "due 2024-01-06"),
        ("sort a list in C++", "sort a list in C"),
        ("sort a list in C#", "sort a list in C++"),
    ],
)
def test_another_figure_sign_or_negation_is_another_guard(left: str, right: str) -> None:
    one, other = guard([left, right]).tolist()
    assert one != other


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Acme raises its dividend by 3 %!", "ACME raises the dividend by 3%"),
        ("Acme beats forecasts https://t.co/a1b2", "Acme beats forecasts https://t.co/c3d4"),
        ("Why do I cough", "Why do we cough"),
        ("The mix in civil law", "A mix in civil laws"),
    ],
)
def test_equal_figures_are_equal_guards_however_the_rest_is_put(left: str, right: str) -> None:
    one, other = guard([left, right]).tolist()
    assert one == other


def test_a_text_without_figures_has_no_guard() -> None:
    assert guard(["What causes asthma?", "", "I wonder"]).tolist() == [0, 0, 0]


def test_a_long_text_has_no_guard() -> None:
    words = "some words and more of them. " * 20
    long = [f"{words} In 2023 it was so.", f"{words} In 2024 it was so."]
    assert min(map(len, long)) >= SHORT
    assert guard(long).tolist() == [0, 0]


def test_signs_and_blanks_make_no_text_long() -> None:
    text = "two tablets after supper and none before noon " * 8
    marked = text.replace(" ", " !  ").upper()
    assert len(text) < 400 < len(marked)
    assert len(set(guard([text, marked]).tolist())) == 1


def test_guards_are_one_number_a_text() -> None:
    made = guard(["1", "2", "3"])
    assert made.dtype == np.uint64
    assert made.shape == (3,)
    assert guard([]).shape == (0,)
