"""HTML in the texts of rows: written as plain text where it is markup, left alone where it only looks like it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.clean.markup import strip_markup
from finetune.prepare.clean.text import clean_text

GOLDEN = sorted((Path(__file__).parent / "golden" / "markup").glob("*.json"))


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.stem)
def test_markup_becomes_what_the_golden_file_says(file: Path) -> None:
    golden = json.loads(file.read_text("utf-8"))
    plain = strip_markup(golden["markup"])
    assert (plain if golden["plain"] == golden["markup"] else clean_text(plain)) == golden["plain"]


@given(st.text("abip <>=/|&;0.", max_size=60))
def test_text_without_pairs_breaks_or_attributes_stays_as_it_is(text: str) -> None:
    if "</" not in text and "=" not in text and "<br" not in text:
        assert strip_markup(text) == text


@pytest.mark.parametrize("piece", ["<!--", "<script", "<b a=b ", "<sup>", "&lt;", "\n \t", "`", "<!doctype "])
def test_hostile_markup_takes_no_quadratic_time(piece: str) -> None:
    strip_markup("<br>" + piece * 50_000)
