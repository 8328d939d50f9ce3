"""Chunks: within the budget, cut on structure, all text exactly once."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.prepare.documents.chunk import approximate_tokens, chunk
from finetune.records import Document, Section

HEADING = re.compile(r"^#{1,6} .*$", re.M)


def words_counted(text: str) -> int:
    return len(text.split())


def leaflet(**sections: str) -> Document:
    return Document("Fever", tuple(Section(heading, 2, text) for heading, text in sections.items()))


def texts(document: Document) -> list[str]:
    return " ".join(section.text for section in document.sections).split()


def chunked_words(chunks: list[str]) -> list[str]:
    return [word for text in chunks for word in HEADING.sub("", text).split()]


def test_small_document_is_one_chunk_under_its_headings() -> None:
    document = leaflet(Symptoms="It is hot.", Causes="Many things.")
    assert list(chunk(document, 100, words_counted)) == [
        "# Fever\n## Symptoms\n\nIt is hot.\n\n## Causes\n\nMany things."
    ]


def test_section_that_fits_whole_is_not_cut() -> None:
    document = leaflet(A="one two three four five", B="one two three four five six seven")
    assert list(chunk(document, 14, words_counted)) == [
        "# Fever\n## A\n\none two three four five",
        "# Fever\n## B\n\none two three four five six seven",
    ]


def test_each_part_of_a_long_section_has_its_headings() -> None:
    parts = list(chunk(leaflet(A="\n\n".join(["one two three."] * 4)), 11, words_counted))
    assert parts == ["# Fever\n## A\n\none two three.\n\none two three."] * 2


def test_sections_of_different_parents_are_kept_apart() -> None:
    sections = (
        Section("A", 1, ""),
        Section("A1", 2, "a1"),
        Section("A2", 2, "a2"),
        Section("B", 1, ""),
        Section("B1", 2, "b1"),
    )
    assert list(chunk(Document(None, sections), 100, words_counted)) == [
        "# A\n## A1\n\na1\n\n## A2\n\na2",
        "# B\n## B1\n\nb1",
    ]


def test_paragraph_is_cut_between_sentences() -> None:
    text = "One two three four. Five six seven eight! Nine ten eleven?"
    assert list(chunk(Document(None, (Section(None, 0, text),)), 8, words_counted)) == [
        "One two three four. Five six seven eight!",
        "Nine ten eleven?",
    ]


def test_list_items_and_table_rows_stay_whole() -> None:
    items = "\n".join(f"- item {number}. has two sentences." for number in range(6))
    rows = "\n".join(f"| row {number} | a. b. c |" for number in range(6))
    for text in (items, rows):
        parts = list(chunk(Document(None, (Section(None, 0, text),)), 15, words_counted))
        assert len(parts) > 1
        assert "\n".join(parts).split("\n") == text.split("\n")


@pytest.mark.parametrize("label", ["-", "1.", "12)", "c.", "(b)", "(2)", "iv."])
def test_line_that_leads_to_a_list_goes_with_it(label: str) -> None:
    items = f"{label} one\n{label} two\n{label} three four"
    text = f"one two three four five\n\nSymptoms are\n\n{items}"
    assert list(chunk(leaflet(A=text), 14, words_counted)) == [
        "# Fever\n## A\n\none two three four five",
        f"# Fever\n## A\n\nSymptoms are\n\n{items}",
    ]


def test_code_block_with_blank_lines_is_one_block() -> None:
    text = "Before.\n\n```\na = 1\n\nb = 2\n```\n\nAfter."
    assert list(chunk(leaflet(A=text), 20, words_counted)) == [f"# Fever\n## A\n\n{text}"]


def test_title_that_is_the_first_heading_too_is_not_doubled() -> None:
    document = Document("Fever", (Section("Fever", 1, "Hot."),))
    assert list(chunk(document, 10, words_counted)) == ["# Fever\n\nHot."]


def test_word_longer_than_the_budget_is_cut() -> None:
    document = Document(None, (Section(None, 0, "x" * 100),))
    parts = list(chunk(document, 30, len))
    assert "".join(parts) == "x" * 100
    assert max(map(len, parts)) <= 30


def test_headings_longer_than_the_budget_leave_room_for_text() -> None:
    document = Document("a " * 50, (Section("b " * 50, 1, "one two three four five six"),))
    parts = list(chunk(document, 5, words_counted))
    assert all(words_counted(part) <= 5 for part in parts)
    assert chunked_words(parts) == ["one", "two", "three", "four", "five", "six"]


def test_document_without_text_gives_nothing() -> None:
    assert list(chunk(Document("Fever", (Section("A", 1, " \n"),)), 10, words_counted)) == []


def test_counting_is_linear_in_the_text() -> None:
    asked = 0

    def count(text: str) -> int:
        nonlocal asked
        asked += len(text)
        return len(text.split())

    text = "\n\n".join("word " * 30 + "end. " + "word " * 20 for _ in range(200))
    list(chunk(leaflet(A=text), 25, count))
    assert asked < 12 * len(text)


PIECES = st.sampled_from(
    [
        "one",
        "two.",
        "three!",
        "four?",
        "- item",
        "| cell | cell |",
        "\n",
        "\n\n",
        "```",
        ": meaning",
        "x" * 40,
        "語。語",
    ]
)
TEXTS = st.lists(PIECES, max_size=40).map(" ".join)
SECTIONS = st.lists(st.builds(Section, st.sampled_from([None, "A", "B b"]), st.integers(1, 4), TEXTS), max_size=6)
COUNTS: list[Callable[[str], int]] = [len, words_counted, approximate_tokens, lambda text: len(text) // 2 + 3]


@settings(deadline=None, max_examples=200)
@given(
    title=st.sampled_from([None, "Title", "A"]),
    sections=SECTIONS,
    budget=st.integers(12, 120),
    count=st.sampled_from(COUNTS),
)
def test_all_text_occurs_once_in_order_and_within_the_budget(
    title: str | None, sections: list[Section], budget: int, count: Callable[[str], int]
) -> None:
    document = Document(title, tuple(sections))
    parts = list(chunk(document, budget, count))
    assert "".join(chunked_words(parts)) == "".join(texts(document))
    assert all(count(part) <= budget for part in parts)
    if count is words_counted and all(text.isascii() for text in texts(document)):
        assert chunked_words(parts) == texts(document)


def test_same_document_gives_the_same_chunks() -> None:
    document = leaflet(A="one two. " * 50, B="three four. " * 50)
    assert list(chunk(document, 20, words_counted)) == list(chunk(document, 20, words_counted))


@pytest.mark.parametrize(
    ("text", "tokens", "slack"),
    [
        # counted with SmolLM2's tokenizer
        ("Hemorrhoids are swollen and inflamed veins around the anus or in the lower rectum.", 20, 0.4),
        ("Лечение заболевания обычно проводится лекарствами, которые назначает врач.", 52, 0.5),
        ("治疗这种疾病通常需要服用医生开的药，持续几周。", 45, 0.5),
    ],
)
def test_tokens_are_about_right(text: str, tokens: int, slack: float) -> None:
    assert (1 - slack) * tokens <= approximate_tokens(text) <= (1 + slack) * tokens


def test_no_text_has_no_tokens() -> None:
    assert approximate_tokens("") == 0
