"""Questions and answers out of documents, by rules."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.prepare.documents.instruct import instruct
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

ANSWER = "It begins with a high temperature, and most people shiver."


def pairs(title: str | None, *sections: tuple[str | None, int, str]) -> list[tuple[str, str]]:
    return list(instruct(Document(title, tuple(Section(*section) for section in sections))))


def questions(title: str | None, *sections: tuple[str | None, int, str]) -> list[str]:
    return [question for question, _ in pairs(title, *sections)]


def test_heading_that_is_a_question_asks_it() -> None:
    assert pairs("Fever", ("What is fever?", 2, ANSWER)) == [("What is fever?", ANSWER)]


@pytest.mark.parametrize(
    "question",
    ["I sneeze: is it bad?", "C or vitamin D: which is better?", "V. cholerae: what is it?", "Civil: what is that?"],
)
def test_word_like_a_number_stays_in_a_question(question: str) -> None:
    assert questions("Fever", (question, 2, ANSWER)) == [question]


def test_question_needs_no_title() -> None:
    assert questions(None, ("Is it bad??", 2, ANSWER)) == ["Is it bad?"]


@pytest.mark.parametrize(
    ("heading", "question"),
    [
        ("Symptoms", "What are the symptoms of hay fever?"),
        ("2.1 Causes", "What causes hay fever?"),
        ("IV. Causes", "What causes hay fever?"),
        ("B. Causes", "What causes hay fever?"),
        ("(2) Causes", "What causes hay fever?"),
        ("(b) Causes", "What causes hay fever?"),
        ("Appendix A: Causes", "What causes hay fever?"),
        ("Diagnosis:", "How is hay fever diagnosed?"),
        ("TREATMENT", "How is hay fever treated?"),
        ("Outlook", "What is the outlook for hay fever?"),
        ("Prevention", "How can hay fever be prevented?"),
        ("Overview", "What is hay fever?"),
        ("Fees", "What are the fees for hay fever?"),
        ("Eligibility", "Who is eligible for hay fever?"),
        ("Life at school", "What should I know about Life at school in hay fever?"),
    ],
)
def test_title_and_heading_make_a_question(heading: str, question: str) -> None:
    assert questions("Facts about hay fever", (heading, 2, ANSWER)) == [question]


def test_nearest_heading_says_what_a_known_one_is_about() -> None:
    sections = (("Hay fever", 2, ""), ("Symptoms", 3, ANSWER), ("Asthma", 2, ""), ("Symptoms", 3, ANSWER + "!"))
    assert questions("Allergies", *sections) == [
        "What are the symptoms of Hay fever?",
        "What are the symptoms of Asthma?",
    ]


def test_known_heading_below_a_known_one_is_about_the_title() -> None:
    assert questions("Hay fever", ("Treatment", 2, ""), ("Side effects", 3, ANSWER)) == [
        "What are the side effects of Hay fever?"
    ]


def test_heading_without_title_gives_nothing() -> None:
    assert pairs(None, ("Symptoms", 2, ANSWER), (None, 0, ANSWER)) == []


def test_text_before_the_first_heading_says_what_the_title_is() -> None:
    assert pairs("Hay fever", (None, 0, ANSWER)) == [("What is Hay fever?", ANSWER)]


def test_definition_list_asks_for_each_term() -> None:
    text = "Pollen\n: The powder that plants make seeds with.\n\nMast cell\n: A cell that sets histamine free."
    assert pairs("Glossary", ("Terms used", 2, text)) == [
        ("What is Pollen?", "The powder that plants make seeds with."),
        ("What is Mast cell?", "A cell that sets histamine free."),
    ]


def test_table_of_questions_is_read_row_by_row() -> None:
    text = f"| Question | Answer |\n| --- | --- |\n| What is fever? | {ANSWER} |\n| Is it bad? | {ANSWER} |"
    assert pairs("Fever", (None, 0, text)) == [("What is fever?", ANSWER), ("Is it bad?", ANSWER)]


def test_other_table_is_part_of_its_section() -> None:
    text = f"{ANSWER}\n\n| Drug | Dose |\n| --- | --- |\n| one | 10 mg |"
    assert pairs("Fever", ("Treatment", 2, text)) == [("How is Fever treated?", text)]


@pytest.mark.parametrize("heading", ["References", "See also", "Contact us", "7. Further reading", "Copyright"])
def test_sections_about_the_document_are_left_out(heading: str) -> None:
    assert pairs("Fever", (heading, 2, ANSWER)) == []
    assert pairs("Fever", (heading, 2, ""), ("Symptoms", 3, ANSWER)) == []


@pytest.mark.parametrize(
    "text",
    [
        "See below.",
        "Which of these do you have, and since when?",
        "The following help against fever in most people:",
        "- https://example.org/a\n- https://example.org/b\n- Fever: www.example.org",
        "- Smith J. Fever in adults. Lancet 2011; 12(3): 45-67.\n- Jones K. More fever. BMJ 2012; 7(2): 12-19.",
    ],
)
def test_section_that_answers_nothing_is_left_out(text: str) -> None:
    assert pairs("Fever", ("Symptoms", 2, text)) == []


def test_capitals_are_lowered() -> None:
    assert questions(None, ("WHAT CAUSES THE FEVER?", 2, ANSWER)) == ["What causes the fever?"]


def test_signs_of_question_and_answer_go() -> None:
    assert pairs(None, ("Q: What is fever?", 2, f"A: {ANSWER}")) == [("What is fever?", ANSWER)]


def test_pair_occurs_once() -> None:
    assert len(pairs(None, ("What is it?", 2, ANSWER), ("What is it?", 2, ANSWER))) == 1


def test_page_with_definitions_becomes_pairs() -> None:
    page = (
        f"<h1>Fever</h1><dl><dt>What is it?</dt><dd>{ANSWER}</dd><dt>Pyrexia</dt><dd>Another word for fever.</dd></dl>"
    )
    document = read_document(page.encode(), "a.html", "a.html")
    assert list(instruct(document)) == [
        ("What is it?", ANSWER),
        ("What is Pyrexia?", "Another word for fever."),
    ]


@given(
    st.lists(
        st.builds(
            Section,
            st.none() | st.text(max_size=40),
            st.integers(0, 6),
            st.text(st.sampled_from("ab ?|:-\n.#[]h"), max_size=200),
        ),
        max_size=5,
    ),
    st.none() | st.text(max_size=30),
)
def test_any_document_gives_whole_pairs_twice_alike(sections: list[Section], title: str | None) -> None:
    document = Document(title, tuple(sections))
    found = list(instruct(document))
    assert found == list(instruct(document))
    assert all(question.strip() and answer.strip() for question, answer in found)
