"""The numbers of ordered lists are those that a page shows."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.list_numbers import write_number
from finetune.prepare.documents.readers import read_document


def text_of(document: str, name: str) -> str:
    return read_document(document.encode(), name, name).sections[0].text


PAGES = {
    "numbers": ("<ol><li>Open<li>Close</ol>", "1. Open\n2. Close"),
    "start": ("<ol start=9><li>Open<li>Close</ol>", "9. Open\n10. Close"),
    "wrong start": ("<ol start=ninth><li>Open</ol>", "1. Open"),
    "below zero": ("<ol start=-1><li>a<li>b<li>c</ol>", "-1. a\n0. b\n1. c"),
    "reversed": ("<ol reversed><li>Third<li>Second<li>First</ol>", "3. Third\n2. Second\n1. First"),
    "reversed from ten": ("<ol reversed start=10><li>a<li>b</ol>", "10. a\n9. b"),
    "value": ("<ol><li>a<li value=7>b<li>c</ol>", "1. a\n7. b\n8. c"),
    "small letters": ("<ol type=a start=26><li>x<li>y</ol>", "z. x\naa. y"),
    "capitals": ("<ol type=A><li>x</ol>", "A. x"),
    "small Roman numbers": ("<ol type=i start=4><li>x</ol>", "iv. x"),
    "Roman numbers": ("<ol type=I start=1994><li>x</ol>", "MCMXCIV. x"),
    "type of an item": ("<ol><li>x<li type=a>y</ol>", "1. x\nb. y"),
    "style of the list": ("<ol style='margin:0; list-style-type: upper-roman'><li>x</ol>", "I. x"),
    "style of the items": ("<ol><li style='list-style-type:lower-alpha'>x</ol>", "a. x"),
    "style without numbers": ("<ol style='list-style: none'><li>x</ol>", "- x"),
    "bullets": ("<ul><li>x<li value=3>y</ul>", "- x\n- y"),
    "lists in lists": (
        "<ol start=10><li>a<ul><li>b<ol type=a><li>c<li>d</ol></ul><li>e</ol>",
        "10. a\n    - b\n      a. c\n      b. d\n11. e",
    ),
    "text beside items": ("<ol>Bring<li>a lamp</li>and<li>a rope</ol>", "- Bring\n1. a lamp\n- and\n2. a rope"),
    "comment beside items": ("<ol><!-- x --><li>a<!-- y --><li>b</ol>", "1. a\n2. b"),
    "interrupted list": (
        "<ol><li>a</ol><p>Wait.<ol start=2><li>b</ol>",
        "1. a\n\nWait.\n\n2. b",
    ),
    "list in a cell": (
        "<table><tr><td>Steps<td><ol><li>Open<li>Close</ol><tr><td>Tools<td>none</table>",
        "| Steps | 1. Open 2. Close |\n| --- | --- |\n| Tools | none |",
    ),
}


@pytest.mark.parametrize(("page", "expected"), PAGES.values(), ids=PAGES)
def test_list_of_a_page_has_its_numbers(page: str, expected: str) -> None:
    assert text_of(page, "a.html") == expected


def test_numbered_list_of_a_whole_page_is_main_text() -> None:
    steps = "".join(f"<li>Turn the {part} of the sluice until it rests against the {part} stop." for part in PARTS)
    page = f"<html><body><div><p>{PROSE}</p><ol>{steps}</ol><p>{PROSE}</p></div></body></html>"
    lines = text_of(page, "a.html").split("\n\n")[1].split("\n")
    assert [line.partition(" ")[0] for line in lines] == ["1.", "2.", "3."]


PARTS = ("upper wheel", "lower wheel", "brake lever")
PROSE = "The sluice keeper opens the gate by hand when the river is low, and leaves it shut for the rest of the year."

XML = {
    "DocBook": ("<a><orderedlist><listitem><para>x</para></listitem></orderedlist></a>", "1. x"),
    "DocBook with letters": (
        '<a><orderedlist numeration="upperalpha"><listitem><para>x</para></listitem></orderedlist></a>',
        "A. x",
    ),
    "JATS": ('<a><list list-type="roman-lower"><list-item><p>x</p></list-item></list></a>', "i. x"),
    "JATS with bullets": ('<a><list list-type="bullet"><list-item><p>x</p></list-item></list></a>', "- x"),
    "JATS with labels": (
        '<a><list list-type="order"><list-item><label>(b)</label><p>x</p></list-item></list></a>',
        "(b) x",
    ),
    "TEI": ('<a><list rend="numbered"><item>x</item><item>y</item></list></a>', "1. x\n2. y"),
}


@pytest.mark.parametrize(("document", "expected"), XML.values(), ids=XML)
def test_list_of_an_xml_file_has_its_numbers(document: str, expected: str) -> None:
    assert text_of(document, "a.xml") == expected


def test_enumerations_of_restructuredtext_have_their_numbers() -> None:
    text = "a. one\nb. two\n\n   (3) x\n   (4) y\n\nText.\n\nIV. four"
    assert text_of(text, "a.rst") == "a. one\nb. two\n   3. x\n   4. y\n\nText.\n\nIV. four"


def test_numbers_of_markdown_stay_as_written() -> None:
    text = "3. one\n4. two\n   * x\n\nText.\n\n7) seven"
    assert text_of(text, "a.md") == text.replace("*", "-")


@pytest.mark.parametrize(
    ("number", "form", "expected"), [(0, "i", "0"), (4000, "I", "4000"), (-1, "a", "-1"), (703, "A", "AAA")]
)
def test_numbers_outside_a_system_are_written_in_digits(number: int, form: str, expected: str) -> None:
    assert write_number(number, form) == expected
