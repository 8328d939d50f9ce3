"""Rich Text Format."""

from __future__ import annotations

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

HEAD = (
    r"{\rtf1\ansi\ansicpg1252\deff0{\fonttbl{\f0\fswiss Arial;}{\f1\fcharset204 Arial Cyr;}{\f2\fcharset128 Gothic;}}"
    r"{\colortbl;\red0\green0\blue0;}{\stylesheet{\s0 Normal;}{\s1\outlinelevel0 heading 1;}{\s2 heading 2;}}"
)


def read(body: str) -> Document:
    return read_document(f"{HEAD}{body}}}".encode("latin-1"), "a.rtf", "a.rtf")


def test_text_is_read_in_order() -> None:
    table = r"\pard\intbl Port\cell Rise\cell\row\intbl Brook\cell 4 m\cell\row"
    items = r"\pard{\listtext\'b7\tab}Boats\par{\listtext\'b7\tab}Buoys\par"
    body = (
        rf"\pard\s1 Tides\par\pard\s2 Rise\par\pard Twice{{\b  a}} day.\par{items} {table} \pard After the table.\par"
    )
    listed = "- Boats\n- Buoys\n\n| Port | Rise |\n| --- | --- |\n| Brook | 4 m |"
    assert read(body) == Document("Tides", (Section("Rise", 2, f"Twice a day.\n\n{listed}\n\nAfter the table."),))


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (r"f\'fcnf \endash  na\u239?ve \ldblquote so\rdblquote", "fünf – naïve “so”"),
        (r"{\f1\'cf\'ee\'f0\'f2}", "Порт"),
        (r"{\f2\'8d\'60}", "港"),
        (r"\uc2\u28207\'8d\'60 x", "港 x"),
        (r"\u-10179?\u-8704?", "😀"),
        (r"10{\super 3} and H{\sub 2}O", "10³ and H₂O"),
        (r"one\line two", "one\ntwo"),
        (r"\{a\\b\}", r"{a\b}"),
        ("wrap\r\nped", "wrapped"),
        (r"{\pict\bin5 }}}}}}After", "After"),
    ],
)
def test_characters_of_a_paragraph(body: str, expected: str) -> None:
    assert read(body).sections[0].text == expected


@pytest.mark.parametrize("label", ["1.", "12)", "(a)", "iv.", "2.1", "2.1.", "[3]"])
def test_numbers_of_items_are_those_that_the_file_has(label: str) -> None:
    items = rf"\pard{{\listtext {label}\tab}}Boats\par{{\pntext {label}\tab}}Buoys\par"
    assert read(items).sections[0].text == f"{label} Boats\n{label} Buoys"


@pytest.mark.parametrize("bullet", [r"\'b7", r"\bullet", "o", r"\u167\'a7", "-"])
def test_bullets_of_items_are_dashes(bullet: str) -> None:
    assert read(rf"\pard{{\listtext {bullet}\tab}}Boats\par{{\listtext {bullet}\tab}}Buoys\par").sections[0].text == (
        "- Boats\n- Buoys"
    )


CANARIES = {  # by place: a group, and what is counted where the canary is no text
    "text": ("CANARY", ""),
    "bold": (r"{\b CANARY}", ""),
    "unknown word": (r"{\newword CANARY}", ""),
    "field": (r"{\field{\*\fldinst DATE}{\fldrslt CANARY}}", ""),
    "link": (r'{\field{\*\fldinst HYPERLINK "CANARY"}{\fldrslt a}}', "link address"),
    "footnote": (r"{\footnote CANARY}", ""),
    "text box": (r"{\shp{\*\shpinst{\sp{\sn x}{\sv y}}{\shptxt CANARY\par}}}", ""),
    "cell": (r"\par\intbl CANARY\cell\row\pard ", ""),
    "header": (r"{\header CANARY\par}", "header"),
    "footer": (r"{\footerr CANARY\par}", "footer"),
    "comment": (r"{\*\annotation CANARY}", "comment"),
    "hidden": (r"{\v CANARY}", "hidden text"),
    "deleted": (r"{\deleted CANARY}", "tracked deletion"),
    "picture": (r"{\pict 0a}", "picture"),
    "object": (r"{\object{\*\objdata 0a}}", "embedded object"),
    "index": (r"{\*\xe CANARY}", "index entry"),
}


@pytest.mark.parametrize("place", CANARIES)
def test_canary_is_text_or_counted(place: str) -> None:
    contents, name = CANARIES[place]
    document = read(rf"Before. {contents} Then.\par After.\par")
    text = " ".join(section.text for section in document.sections)
    assert ("CANARY" in text, dict(document.unused)) == (not name, {name: 1} if name else {})
    assert text.endswith(("After.", "[1] CANARY"))


def test_title_is_that_of_the_properties() -> None:
    document = read(r"{\info{\title Tides}{\author CANARY}{\*\company CANARY}}Text.\par")
    assert document == Document("Tides", (Section(None, 0, "Text."),))


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"text", "damaged_rtf"), (HEAD.encode() + b"}", "no_text"), (b"{\\rtf1" + b"{" * 9999, "too_deep")],
)
def test_damaged_or_hostile_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read_document(data, "a.rtf", "a.rtf")
    assert caught.value.reason == reason
