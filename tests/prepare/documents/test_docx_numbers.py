"""The numbers of lists and headings in Word files are those that Word shows."""

from __future__ import annotations

import io

import docx
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from finetune.prepare.documents.readers import read_document


def level(number: int, form: str, text: str, more: str = "") -> str:
    return f'<w:lvl w:ilvl="{number}"><w:start w:val="1"/>{more}<w:numFmt w:val="{form}"/><w:lvlText w:val="{text}"/></w:lvl>'


LEGAL = level(0, "decimal", "%1.") + level(1, "lowerLetter", "(%2)") + level(2, "decimal", "%1.%2.%3", "<w:isLgl/>")
NUMBERING = (
    f'<w:numbering {nsdecls("w")}><w:abstractNum w:abstractNumId="0">{LEGAL}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="1">{level(0, "bullet", "")}{level(1, "none", "")}</w:abstractNum>'
    f'<w:abstractNum w:abstractNumId="2">{level(0, "upperRoman", "Article %1 ")}</w:abstractNum>'
    '<w:abstractNum w:abstractNumId="3"><w:numStyleLink w:val="Legal"/></w:abstractNum>'
    '<w:num w:numId="1"><w:abstractNumId w:val="0"/></w:num><w:num w:numId="2"><w:abstractNumId w:val="1"/></w:num>'
    '<w:num w:numId="3"><w:abstractNumId w:val="2"/></w:num><w:num w:numId="4"><w:abstractNumId w:val="0"/>'
    '<w:lvlOverride w:ilvl="0"><w:startOverride w:val="5"/></w:lvlOverride></w:num>'
    '<w:num w:numId="5"><w:abstractNumId w:val="3"/></w:num></w:numbering>'
)


def word(*paragraphs: tuple[str, str, int | None, int]) -> bytes:
    """A Word file of paragraphs, each with its style, its list (None: that of its style) and its level."""
    file = docx.Document()
    file.part.numbering_part._element = parse_xml(NUMBERING)
    legal = parse_xml(f'<w:numPr {nsdecls("w")}><w:ilvl w:val="0"/><w:numId w:val="3"/></w:numPr>')
    linked = '<w:name w:val="Legal"/><w:pPr><w:numPr><w:numId w:val="1"/></w:numPr></w:pPr>'
    file.styles.element.append(
        parse_xml(f'<w:style {nsdecls("w")} w:type="numbering" w:styleId="Legal">{linked}</w:style>')
    )
    file.styles["Heading 1"].element.get_or_add_pPr().append(legal)
    for text, style, number, depth in paragraphs:
        properties = file.add_paragraph(text, style=style)._p.get_or_add_pPr()
        if number is not None:
            place = f'<w:ilvl w:val="{depth}"/><w:numId w:val="{number}"/>'
            properties.append(parse_xml(f"<w:numPr {nsdecls('w')}>{place}</w:numPr>"))
    data = io.BytesIO()
    file.save(data)
    return data.getvalue()


def listed(*places: tuple[str, int, int]) -> str:
    paragraphs = [(text, "Normal", number or None, depth) for text, number, depth in places]
    return read_document(word(*paragraphs), "a.docx", "a").sections[0].text


def test_list_of_a_word_file_goes_on_after_a_paragraph() -> None:
    assert listed(("a", 1, 0), ("b", 1, 0), ("Wait.", 0, 0), ("c", 1, 0)) == "1. a\n2. b\n\nWait.\n\n3. c"


def test_levels_of_a_word_file_have_their_own_numbers() -> None:
    assert listed(("a", 1, 0), ("b", 1, 1), ("c", 1, 2), ("d", 1, 1), ("e", 1, 0), ("f", 1, 1)) == (
        "1. a\n   (a) b\n       1.1.1 c\n   (b) d\n2. e\n   (a) f"
    )


def test_list_of_a_word_file_begins_anew_where_it_says_so() -> None:
    assert listed(("a", 1, 0), ("b", 4, 0), ("c", 4, 0)) == "1. a\n5. b\n6. c"


def test_paragraphs_of_a_word_file_without_text_are_counted() -> None:
    assert listed(("a", 1, 0), ("", 1, 0), ("c", 1, 0)) == "1. a\n3. c"


def test_bullets_of_a_word_file_have_no_numbers() -> None:
    assert listed(("a", 2, 0), ("b", 2, 1), ("c", 2, 0)) == "- a\n  - b\n- c"


def test_numbers_of_headings_in_a_word_file_are_those_of_their_style() -> None:
    data = word(
        ("Boats", "Heading 1", None, 0), ("a", "Normal", 1, 0), ("Buoys", "Heading 1", None, 0), ("b", "Normal", 0, 0)
    )
    sections = read_document(data, "a.docx", "a").sections
    assert [(section.heading, section.text) for section in sections] == [
        ("Article I Boats", "1. a"),
        ("Article II Buoys", "b"),
    ]


def test_list_of_a_word_file_has_the_numbers_of_its_list_style() -> None:
    assert listed(("a", 5, 0), ("Wait.", 0, 0), ("b", 5, 0)) == "1. a\n\nWait.\n\n2. b"


def test_list_in_a_cell_of_a_word_file_has_its_numbers() -> None:
    file = docx.Document()
    table = file.add_table(2, 2)
    for text, style in (("Open", "List Number"), ("Close", "List Number")):
        table.cell(0, 1).add_paragraph(text, style=style)
    table.cell(1, 0).text = "Tools"
    data = io.BytesIO()
    file.save(data)
    assert "1. Open 2. Close" in read_document(data.getvalue(), "a.docx", "a").sections[0].text
