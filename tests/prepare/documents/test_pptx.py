"""PowerPoint presentations, built from the XML of their slides."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

from ..archives import zip_of

SPACES = (
    'xmlns:p="http://schemas.openxmlformats.org/presentationml/2006/main" '
    'xmlns:a="http://schemas.openxmlformats.org/drawingml/2006/main" '
    'xmlns:m="http://schemas.openxmlformats.org/officeDocument/2006/math" '
    'xmlns:mc="http://schemas.openxmlformats.org/markup-compatibility/2006" '
    'xmlns:r="http://schemas.openxmlformats.org/officeDocument/2006/relationships"'
)
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"


def run(text: str, properties: str = "") -> str:
    return f"<a:r><a:rPr {properties}/><a:t>{text}</a:t></a:r>"


def paragraph(*runs: str, properties: str = "") -> str:
    return f"<a:p>{properties}{''.join(runs)}</a:p>"


def auto(text: str, *, level: int = 0, kind: str = "arabicPeriod", start: int = 1) -> str:
    """A paragraph with a number."""
    number = f'<a:buAutoNum type="{kind}" startAt="{start}"/>'
    return paragraph(run(text), properties=f'<a:pPr lvl="{level}">{number}</a:pPr>')


def shape(*paragraphs: str, place: str = "") -> str:
    holder = f"<p:ph {place}/>" if place else ""
    body = "".join(text if text.startswith("<") else paragraph(run(text)) for text in paragraphs)
    return f"<p:sp><p:nvSpPr><p:nvPr>{holder}</p:nvPr></p:nvSpPr><p:txBody>{body}</p:txBody></p:sp>"


def graphic(contents: str = "", kind: str = "table") -> str:
    data = f'<a:graphicData uri="urn:x/2006/{kind}">{contents}</a:graphicData>'
    return f"<p:graphicFrame><a:graphic>{data}</a:graphic></p:graphicFrame>"


def table(*rows: Sequence[str]) -> str:
    cells = (
        "".join(
            f"<a:tc><a:txBody>{paragraph(run(text))}</a:txBody></a:tc>" if text else '<a:tc vMerge="1"/>'
            for text in row
        )
        for row in rows
    )
    return graphic(f"<a:tbl>{''.join(f'<a:tr>{each}</a:tr>' for each in cells)}</a:tbl>")


def slide(*shapes: str, attributes: str = "") -> str:
    return f"<p:sld {SPACES} {attributes}><p:cSld><p:spTree>{''.join(shapes)}</p:spTree></p:cSld></p:sld>"


def relations(targets: Mapping[str, tuple[str, str]]) -> str:
    links = "".join(
        f'<Relationship Id="{id}" Type="{OFFICE}/{kind}" Target="{name}"/>' for id, (kind, name) in targets.items()
    )
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{links}</Relationships>'
    )


def presentation(*slides: str, notes: str = "", comments: str = "") -> bytes:
    """The bytes of a presentation; `notes` and `comments` are those of the last slide."""
    ids = "".join(f'<p:sldId id="{256 + n}" r:id="s{n}"/>' for n in range(len(slides)))
    contents = {
        "_rels/.rels": relations({"a": ("officeDocument", "ppt/presentation.xml")}),
        "ppt/presentation.xml": f"<p:presentation {SPACES}><p:sldIdLst>{ids}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations({f"s{n}": ("slide", f"slides/x{n}.xml") for n in range(len(slides))}),
        f"ppt/slides/_rels/x{len(slides) - 1}.xml.rels": relations(
            {"n": ("notesSlide", "../notes/n.xml"), "c": ("comments", "../comments/c.xml")}
        ),
        "ppt/notes/n.xml": slide(shape("3", place='type="sldNum"'), shape(*notes.split("|"), place='type="body" idx="1"')),
        "ppt/comments/c.xml": f"<p:cmLst {SPACES}>{comments}</p:cmLst>",
        **{f"ppt/slides/x{n}.xml": xml for n, xml in enumerate(slides)},
    }  # fmt: skip
    return zip_of(contents)


def read(data: bytes) -> Document:
    return read_document(data, "a.pptx", "a.pptx")


def test_slides_are_read_in_order_with_their_notes() -> None:
    first = slide(shape("Tides", place='type="ctrTitle"'), shape("A course for pilots", place='type="subTitle"'))
    inner = paragraph(run("in spring"), properties='<a:pPr lvl="1"/>')
    second = slide(
        shape("They rise", inner, "They fall", place='idx="1"'),
        shape("Twice a day", place='type="title"'),
        table(["Port", "Rise"], ["Oldbrook", "4 m"], ["", "5 m"]),
        shape("12", place='type="sldNum"'),
        "<p:pic/>",
    )
    assert read(presentation(first, second, notes="Ask who has seen it.|Wait.")) == Document(
        "Tides",
        (
            Section(None, 0, "A course for pilots"),
            Section(
                "Twice a day",
                2,
                "- They rise\n  - in spring\n- They fall\n\n| Port | Rise |\n| --- | --- |\n| Oldbrook | 4 m |\n"
                "| Oldbrook | 5 m |\n\nAsk who has seen it.\n\nWait.",
            ),
        ),
        {"slide number": 2, "picture": 1},
    )


EQUATION = "<m:oMath><m:r><m:t>x=1</m:t></m:r></m:oMath>"
BOTH = "<mc:AlternateContent><mc:Choice>{0}</mc:Choice><mc:Fallback>{0}</mc:Fallback></mc:AlternateContent>"


@pytest.mark.parametrize(
    ("contents", "expected"),
    [
        (shape(paragraph(run("10"), run("3", 'baseline="30000"'), run(" and H"), run("2", 'baseline="-25000"'))), "10³ and H₂"),
        (shape(paragraph(run("one"), "<a:br/>", run("two"))), "one\ntwo"),
        (shape(paragraph(run("It is "), EQUATION)), "It is $x=1$"),
        (BOTH.format(shape("once")), "once"),
        (f"<p:grpSp>{shape('in a group')}</p:grpSp>", "in a group"),
        (shape(paragraph(run("a"), properties='<a:pPr><a:buChar char="•"/></a:pPr>')), "- a"),
        (shape(paragraph(run("a"), properties="<a:pPr><a:buNone/></a:pPr>"), "b", place='type="body"'), "a\n\n- b"),
    ],
)  # fmt: skip
def test_text_of_a_shape(contents: str, expected: str) -> None:
    assert read(presentation(slide(contents))).sections[0].text == expected


@pytest.mark.parametrize(
    ("paragraphs", "expected"),
    [
        ((auto("a"), auto("b", level=1), auto("c", level=1), auto("d")), "1. a\n   1. b\n   2. c\n2. d"),
        ((auto("a", start=4), auto("b", start=4), "Wait.", auto("c")), "4. a\n5. b\n\nWait.\n\n1. c"),
        (
            (auto("a", kind="romanUcParenR"), auto("b", kind="arabicPlain"), auto("c", kind="arabicPlain")),
            "I) a\n1 b\n2 c",
        ),
        (
            (auto("a", kind="alphaLcParenBoth"), auto("b", level=1), "x", auto("c", level=1)),
            "(a) a\n    1. b\n\nx\n\n  1. c",
        ),
    ],
)
def test_numbers_of_paragraphs_are_those_of_the_slide(paragraphs: Sequence[str], expected: str) -> None:
    assert read(presentation(slide(shape(*paragraphs)))).sections[0].text == expected


CANARIES = {  # by place: a slide, and what is counted where the canary is no text
    "shape": (slide(shape("CANARY")), ""),
    "title": (slide(shape("CANARY", place='type="title"'), shape("text")), ""),
    "body": (slide(shape("CANARY", place='type="body"')), ""),
    "cell": (slide(table(["CANARY", "b"])), ""),
    "field": (slide(shape(paragraph("<a:fld><a:t>CANARY</a:t></a:fld>"))), ""),
    "footer": (slide(shape("CANARY", place='type="ftr"')), "footer"),
    "hidden slide": (slide(shape("CANARY"), attributes='show="0"'), "hidden slide"),
    "chart": (slide(graphic(kind="chart")), "chart"),
    "diagram": (slide(graphic(kind="diagram")), "diagram"),
    "other graphic": (slide(graphic(kind="new")), "graphic"),
    "picture": (slide('<p:pic descr="CANARY"/>'), "picture"),
}


@pytest.mark.parametrize("place", CANARIES)
def test_canary_on_a_slide_is_text_or_counted(place: str) -> None:
    contents, name = CANARIES[place]
    document = read(presentation(contents, slide(shape("Last."))))
    text = " ".join(f"{section.heading} {section.text}" for section in document.sections) + (document.title or "")
    assert ("CANARY" in text, name in document.unused) == (not name, bool(name))


def test_comments_are_counted() -> None:
    comment = "<p:cm><p:text>CANARY</p:text></p:cm>"
    assert read(presentation(slide(shape("a")), comments=comment)).unused["comment"] == 1


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"not a presentation", "damaged_pptx"),
        (presentation(slide(shape("a")))[:900], "damaged_pptx"),
        (presentation("<broken"), "damaged_pptx"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "encrypted_pptx"),
        (presentation(slide()), "no_text"),
        (presentation(slide(shape("a")) + " " * 2**22), "bomb"),
        (presentation('<!DOCTYPE a [<!ENTITY b "c">]>' + slide(shape("&b;"))), "xml_entities"),
    ],
)
def test_damaged_or_hostile_presentation_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(Unusable) as caught:
        read(data)
    assert caught.value.reason == reason
