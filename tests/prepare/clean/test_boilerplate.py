"""Boilerplate: what the documents of a source share goes, what they say stays."""

from __future__ import annotations

import random

from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.prepare.clean.boilerplate import SAMPLED_DOCUMENTS, LineCounter, drop_repeated
from finetune.records import Document, Section

COOKIES = "We use cookies to improve this website, and by reading on you agree to our use of them."
MENU = "Home\nAbout us\nServices\nContact\nImprint"


def leaflet(number: int, *, extra: str = "") -> Document:
    text = f"Leaflet number {number} tells how disease {number} is found, treated and prevented in adults and children."
    symptoms = f"- Fever\n- Cough\n- Rash of kind {number}\n\n| Drug | Dose |\n|---|---|\n| A | 5 mg |"
    return Document(f"Disease {number}", (Section(None, 0, extra + text), Section("Symptoms", 2, symptoms)))


def repeated_in(documents: list[Document]) -> frozenset[int]:
    counter = LineCounter()
    for document in documents:
        counter.add(document)
    return counter.repeated()


def words_of(document: Document) -> str:
    return "\n".join(section.text for section in document.sections)


def test_notices_and_menus_that_documents_share_go() -> None:
    documents = [leaflet(number, extra=f"{MENU}\n\n{COOKIES}\n\n") for number in range(5)]
    repeated = repeated_in(documents)
    assert [drop_repeated(document, repeated) for document in documents] == [leaflet(number) for number in range(5)]


def test_two_documents_are_too_few_to_tell() -> None:
    documents = [leaflet(number, extra=f"{COOKIES}\n") for number in range(2)]
    assert repeated_in(documents) == frozenset()


def test_a_line_of_few_among_many_documents_stays() -> None:
    documents = [leaflet(number, extra=f"{COOKIES}\n" if number < 5 else "") for number in range(30)]
    assert repeated_in(documents) == frozenset()


def test_headings_lists_tables_and_code_that_documents_share_stay() -> None:
    code = "```\nfor every row in the table: print the row and the number of it\n```\n"
    documents = [
        leaflet(number, extra=f"## How it is treated in most of the cases that we know\n{code}") for number in range(9)
    ]
    repeated = repeated_in(documents)
    assert [drop_repeated(document, repeated) for document in documents] == documents


def test_a_section_under_a_heading_keeps_its_only_text() -> None:
    standing = "This condition is inherited in an autosomal recessive pattern, so both copies of the gene are changed."
    documents = [
        Document(None, (*leaflet(number).sections, Section("Is it inherited?", 2, standing))) for number in range(6)
    ]
    repeated = repeated_in(documents)
    assert repeated
    assert [drop_repeated(document, repeated) for document in documents] == documents


def test_documents_that_are_nearly_the_same_are_left_to_deduplication() -> None:
    sentences = [f"Sentence number {n} says something new about the matter at hand today." for n in range(20)]
    documents = [Document(str(n), (Section(None, 0, "\n".join([*sentences, f"Copy {n}"])),)) for n in range(4)]
    repeated = repeated_in(documents)
    assert repeated
    assert [drop_repeated(document, repeated) for document in documents] == documents


def test_copies_of_a_document_count_once() -> None:
    assert repeated_in([leaflet(1, extra=COOKIES)] * 9) == frozenset()


def test_case_and_blanks_make_no_difference() -> None:
    notices = [COOKIES, COOKIES.upper(), COOKIES.replace(" ", "  ")]
    documents = [leaflet(number, extra=f"{notices[number % 3]}\n") for number in range(6)]
    repeated = repeated_in(documents)
    assert not any("cookies" in words_of(drop_repeated(document, repeated)).lower() for document in documents)


@settings(max_examples=20)
@given(st.randoms(use_true_random=False))
def test_order_does_not_change_the_outcome(chance: random.Random) -> None:
    documents = [leaflet(number, extra=f"{COOKIES}\n" if number % 2 else f"{MENU}\n") for number in range(12)]
    assert repeated_in(chance.sample(documents, len(documents))) == repeated_in(documents) != frozenset()


def test_memory_is_bounded_and_a_large_source_is_sampled_alike_in_any_order() -> None:
    many = [Document(str(n), (Section(None, 0, f"{COOKIES}\nNumber {n}"),)) for n in range(SAMPLED_DOCUMENTS * 2 + 50)]
    forward, backward = LineCounter(), LineCounter()
    for ahead, behind in zip(many, reversed(many), strict=True):
        forward.add(ahead)
        backward.add(behind)
    assert len(forward.documents) <= 2 * SAMPLED_DOCUMENTS
    assert forward.repeated() == backward.repeated()
    assert len(forward.repeated()) == 1
    assert forward.documents == backward.documents
