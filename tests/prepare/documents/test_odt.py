"""OpenDocument texts, built from their XML."""

from __future__ import annotations

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

from ..archives import zip_of

NAMES = ("office", "text", "table", "style", "draw", "form")
SPACES = " ".join(f'xmlns:{name}="urn:oasis:names:tc:opendocument:xmlns:{name}:1.0"' for name in NAMES)
SPACES += ' xmlns:svg="urn:oasis:names:tc:opendocument:xmlns:svg-compatible:1.0"'
SPACES += ' xmlns:fo="urn:fo" xmlns:xlink="http://www.w3.org/1999/xlink"'
STYLES = "".join(
    f'<style:style style:name="{name}" {more}><style:text-properties {properties}/></style:style>'
    for name, more, properties in [
        ("up", "", 'style:text-position="super 58%"'),
        ("down", "", 'style:text-position="-33% 58%"'),
        ("hidden", "", 'text:display="none"'),
        ("P1", 'style:parent-style-name="Title"', ""),
    ]
)


def odt(body: str, margins: str = "", lists: str = "", **parts: str) -> bytes:
    contents = {
        "content.xml": f"<office:document-content {SPACES}><office:automatic-styles>{STYLES}{lists}</office:automatic-styles>"
        f"<office:body><office:text>{body}</office:text></office:body></office:document-content>",
        "styles.xml": f"<office:document-styles {SPACES}><office:master-styles><style:master-page>{margins}"
        "</style:master-page></office:master-styles></office:document-styles>",
        **parts,
    }
    return zip_of(contents)


def read(data: bytes) -> Document:
    return read_document(data, "a.odt", "a.odt")


def paragraph(*contents: str, style: str = "") -> str:
    return f'<text:p text:style-name="{style}">{"".join(contents)}</text:p>'


def span(text: str, style: str) -> str:
    return f'<text:span text:style-name="{style}">{text}</text:span>'


def heading(text: str, level: int) -> str:
    return f'<text:h text:outline-level="{level}">{text}</text:h>'


def cell(text: str, more: str = "") -> str:
    return f"<table:table-cell {more}>{paragraph(text)}</table:table-cell>"


def row(*cells: str) -> str:
    return f"<table:table-row>{''.join(cells)}</table:table-row>"


def test_text_is_read_in_order() -> None:
    inner = f"<text:list><text:list-item>{paragraph('Once')}</text:list-item></text:list>"
    items = f"<text:list-item>{paragraph('Boats')}{inner}</text:list-item><text:list-item>{paragraph('Buoys')}</text:list-item>"
    table = (
        f"<table:table-header-rows>{row(cell('Port'), cell('Rise'))}</table:table-header-rows>"
        + row(cell("Oldbrook", 'table:number-rows-spanned="2"'), cell("4 m"))
        + row("<table:covered-table-cell/>", cell("5 m"))
    )
    body = (
        paragraph("Tides", style="P1")
        + heading("Rise", 1)
        + paragraph("Twice a day.")
        + f"<text:list>{items}</text:list><table:table>{table}</table:table>"
        + heading("Fall", 2)
        + paragraph("Later.")
    )
    listed = "- Boats\n  - Once\n- Buoys\n\n| Port | Rise |\n| --- | --- |\n| Oldbrook | 4 m |\n| Oldbrook | 5 m |"
    assert read(odt(body)) == Document(
        "Tides", (Section("Rise", 2, f"Twice a day.\n\n{listed}"), Section("Fall", 3, "Later."))
    )


NOTE = "<text:note><text:note-citation>1</text:note-citation><text:note-body>{}</text:note-body></text:note>"
FRAME = "<draw:frame>{}</draw:frame>"
MATH = "<math xmlns='m'><mi>x</mi><mo>=</mo><mn>1</mn></math>"


@pytest.mark.parametrize(
    ("contents", "expected", "unused"),
    [
        (paragraph("10", span("3", "up"), " and H", span("2", "down")), "10³ and H₂", {}),
        (paragraph("a", '<text:s text:c="3"/>', "b<text:tab/>c"), "a b c", {}),
        (paragraph("one<text:line-break/>two"), "one\ntwo", {}),
        (paragraph("Ask.", NOTE.format(paragraph("Ann.")), " Wait."), "Ask.[1] Wait.\n\n[1] Ann.", {}),
        (paragraph("a", FRAME.format(f"<draw:text-box>{paragraph('boxed')}</draw:text-box>")), "a\n\nboxed", {}),
        (paragraph("It is ", FRAME.format('<draw:object xlink:href="./Object 1"/><draw:image/>')), "It is x = 1", {}),
        (paragraph("a", span("b", "hidden")), "a", {"hidden text": 1}),
        (f"<text:section>{paragraph('in a section')}</text:section>", "in a section", {}),
    ],
)
def test_contents_of_a_paragraph(contents: str, expected: str, unused: dict[str, int]) -> None:
    document = read(odt(contents, **{"Object 1/content.xml": MATH}))
    assert (document.sections[0].text, document.unused) == (expected, unused)


DELETION = f"<text:changed-region><text:deletion>{paragraph('CANARY')}</text:deletion></text:changed-region>"
CANARIES = {  # by place: XML, and what is counted where the canary is no text
    "paragraph": (paragraph("CANARY"), ""),
    "heading": (heading("CANARY", 2) + paragraph("text"), ""),
    "span": (paragraph(span("CANARY", "")), ""),
    "link": (paragraph("<text:a>CANARY</text:a>"), ""),
    "title": (paragraph("<text:title>CANARY</text:title>"), ""),
    "field": (paragraph("<text:user-field-get>CANARY</text:user-field-get>"), ""),
    "numbered paragraph": (f"<text:numbered-paragraph>{paragraph('CANARY')}</text:numbered-paragraph>", ""),
    "bibliography": (f"<text:bibliography>{paragraph('CANARY')}</text:bibliography>", ""),
    "note": (paragraph(NOTE.format(paragraph("CANARY"))), ""),
    "comment": (paragraph(f"<office:annotation>{paragraph('CANARY')}</office:annotation>"), "comment"),
    "deletion": (f"<text:tracked-changes>{DELETION}</text:tracked-changes>", "tracked deletion"),
    "contents": (f"<text:table-of-content>{paragraph('CANARY')}</text:table-of-content>", "table of contents"),
    "picture": (paragraph(FRAME.format("<draw:image/>")), "picture"),
    "name of a picture": (paragraph(FRAME.format("<svg:title>CANARY</svg:title>")), "alternative text"),
    "object": (paragraph(FRAME.format('<draw:object xlink:href="./Object 2"/>')), "embedded object"),
    "hidden": (paragraph("CANARY", style="hidden"), "hidden text"),
    "prompt": (paragraph("<text:placeholder>CANARY</text:placeholder>"), "form field"),
    "form": ("<office:forms><form:form>CANARY</form:form></office:forms>", "form field"),
}


@pytest.mark.parametrize("place", CANARIES)
def test_canary_is_text_or_counted(place: str) -> None:
    contents, name = CANARIES[place]
    document = read(odt(paragraph("Before.") + contents + paragraph("After.")))
    text = " ".join(f"{section.heading} {section.text}" for section in document.sections)
    assert ("CANARY" in text, dict(document.unused)) == (not name, {name: 1} if name else {})


def test_headers_and_footers_are_counted() -> None:
    margins = f"<style:header>{paragraph('CANARY')}</style:header><style:footer>{paragraph('1')}</style:footer>"
    assert read(odt(paragraph("a"), margins)).unused == {"header": 1, "footer": 1}


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a text", "damaged_odt"),
        (odt(paragraph("a"))[:300], "damaged_odt"),
        (odt("<broken"), "damaged_odt"),
        (odt(paragraph("a"), **{"META-INF/manifest.xml": "<manifest:encryption-data/>"}), "encrypted_odt"),
        (odt(""), "no_text"),
        (odt(paragraph("a") + " " * 2**22), "bomb"),
        (odt(paragraph("a"), **{"styles.xml": '<!DOCTYPE a [<!ENTITY b "c">]><a/>'}), "xml_entities"),
    ],
)
def test_damaged_or_hostile_text_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert caught.value.reason == reason


# --- lists ------------------------------------------------------------------------------------------------------------


def level(number: int, form: str, more: str = "", of: str = "list-level-style-number") -> str:
    return f'<text:{of} text:level="{number}" style:num-format="{form}" style:num-suffix="." {more}/>'


LISTS = (
    f'<text:list-style style:name="L1">{level(1, "1")}'
    + level(2, "a", 'style:num-prefix="("')
    + level(3, "1", 'text:display-levels="3"')
    + '</text:list-style><text:list-style style:name="L2"><text:list-level-style-bullet text:level="1"/></text:list-style>'
)


def item(*contents: str, more: str = "") -> str:
    inner = "".join(each if each[0] == "<" else paragraph(each) for each in contents)
    return f"<text:list-item {more}>{inner}</text:list-item>"


def items(*contents: str, style: str = "", more: str = "") -> str:
    name = f'text:style-name="{style}"' if style else ""
    return (
        f"<text:list {name} {more}>{''.join(each if each[0] == '<' else item(each) for each in contents)}</text:list>"
    )


GOES_ON = 'text:continue-numbering="true"'
WAIT = paragraph("Wait.")
NUMBERED = {
    "numbers": (items("a", "b", style="L1"), "1. a\n2. b"),
    "bullets": (items("a", "b", style="L2"), "- a\n- b"),
    "levels": (
        items(item("a", items(item("b", items("c")), "d")), item("e", items("f")), style="L1"),
        "1. a\n   (a. b\n       1.a.1. c\n   (b. d\n2. e\n   (a. f",
    ),
    "value": (items("a", item("b", more='text:start-value="7"'), "c", style="L1"), "1. a\n7. b\n8. c"),
    "new list": (items("a", style="L1") + WAIT + items("b", style="L1"), "1. a\n\nWait.\n\n1. b"),
    "same list": (items("a", style="L1") + WAIT + items("b", style="L1", more=GOES_ON), "1. a\n\nWait.\n\n2. b"),
    "named list": (
        items("a", style="L1", more='xml:id="x"')
        + items("b", style="L1")
        + items("c", style="L1", more='text:continue-list="x"'),
        "1. a\n\n1. b\n\n2. c",
    ),
    "level that goes on": (
        items(item("a", items("b")), style="L1") + WAIT + items(item(items("c")), "d", style="L1", more=GOES_ON),
        "1. a\n   (a. b\n\nWait.\n\n  (b. c\n2. d",
    ),
}


@pytest.mark.parametrize(("body", "expected"), NUMBERED.values(), ids=NUMBERED)
def test_list_has_the_numbers_of_its_style(body: str, expected: str) -> None:
    assert read(odt(body, lists=LISTS)).sections[0].text == expected


def test_headings_have_the_numbers_of_the_outline() -> None:
    body = "".join(heading(name, 1) + paragraph("x") for name in ("Boats", "Buoys"))
    outline = f"<text:outline-style>{level(1, 'I', of='outline-level-style')}</text:outline-style>"
    assert [section.heading for section in read(odt(body, lists=outline)).sections] == ["I. Boats", "II. Buoys"]
