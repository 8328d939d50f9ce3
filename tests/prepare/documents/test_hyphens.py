"""Words that are broken over lines: with their own hyphen, and without that of the printer."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.hyphens import count_words, without_break
from finetune.prepare.documents.readers import read_document

# Words of an English text, which tells English by "the".
KNOWN = "The keeper of the old ferry tells the visitors that the harbour has a light of its own and a sluice of stone."


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ("the har-", "bour", "the harbour"),
        ("the light-", "house", "the lighthouse"),
        ("a self-", "made man", "a self-made man"),
        ("a well-", "built pier", "a well-built pier"),
        ("a box-", "shaped barge", "a box-shaped barge"),
        ("a stone-", "bearing barge", "a stone-bearing barge"),
        ("the ferry-", "keeper", "the ferry-keeper"),
        ("an e-", "bike", "an e-bike"),
        ("the co-", "organiser", "the co-organiser"),
        ("the co-", "herent plan", "the coherent plan"),
        ("the GPS-", "guided barge", "the GPS-guided barge"),
        ("a state-of-the-", "art pier", "a state-of-the-art pier"),
        ("the end-", "to-end test", "the end-to-end test"),
        ("in pre-", "and post-war years", "in pre- and post-war years"),
        ("the mari\xad", "time code", "the maritime code"),
        ("the mari‐", "time code", "the maritime code"),
        ("the move-", "ment", "the movement"),
    ],
)
def test_hyphen_stays_where_it_is_the_words_own(before: str, after: str, expected: str) -> None:
    assert without_break(before, after, count_words([[KNOWN]])) + after == expected


@pytest.mark.parametrize(("elsewhere", "expected"), [("co-owner", "co-owner"), ("coowner", "coowner")])
def test_word_is_written_as_elsewhere_in_the_text(elsewhere: str, expected: str) -> None:
    assert (
        without_break("the co-", "owner", count_words([[KNOWN, f"The {elsewhere} slept."]])) + "owner"
        == f"the {expected}"
    )


def test_halves_of_broken_words_are_no_words_of_the_text() -> None:
    assert count_words([["an infec-", "tion of the rud-", "  der"], ["rud-"]]) == {"an": 1, "of": 1, "the": 1, "rud": 1}


def test_rules_of_english_are_not_those_of_other_languages() -> None:
    words = count_words([["Der alte Turm steht am Hafen, und das Tor am Turm ist neu."]])
    assert without_break("der Hafen-", "turm", words) + "turm" == "der Hafenturm"


def test_hyphens_at_line_ends_of_a_text_are_those_of_its_words() -> None:
    text = (
        "The co-owner of the mill slept while the ice was melting, and co-\n"
        "owner and miller of the next weir, who was a strong and well-\n"
        "known man, and, as the people of the valley say, a true Anglo-\n"
        "Saxon, opened the sluice of the wide and empty COVID-19-\n"
        "era pier, which had been built before the war in the old har-\n"
        "bour, after the storm had gone away, for the time between the 2-\n"
        "and the 3-hour breaks.\n"
    )
    assert read_document(text.encode(), "a.txt", "a.txt").sections[0].text == (
        "The co-owner of the mill slept while the ice was melting, and co-owner and miller of the next weir, who was a strong "
        "and well-known man, and, as the people of the valley say, a true Anglo-Saxon, opened the sluice of the wide and empty "
        "COVID-19-era pier, which had been built before the war in the old harbour, after the storm had gone away, for the "
        "time between the 2- and the 3-hour breaks."
    )


def test_words_without_end_are_counted_in_linear_time() -> None:
    assert count_words([["a" * 500_000, "-" * 500_000, "a-" * 250_000]]).total() == 2
