"""Clean text: composed, without invisible characters, the same after a second pass."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.clean import clean_text


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("cafe\u0301", "café"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a  \t\nb \n", "a\nb"),
        ("\ufeffnul\x00 bell\x07 esc\x1b", "nul bell esc"),
        ("tab\tand\n\nblank line", "tab\tand\n\nblank line"),
        ("  indented\n    code", "indented\n    code"),
        ("family 👨\u200d👩\u200d👧", "family 👨\u200d👩\u200d👧"),
        ("5\u00a0% \u2013 6\u202f%", "5\u00a0% \u2013 6\u202f%"),
    ],
)
def test_cleaning(dirty: str, clean: str) -> None:
    assert clean_text(dirty) == clean


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in once)


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        clean_text("a\ud800b")
