"""Documents that are zip archives of XML: Word files and EPUB books."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import docx
import pytest
from docx.opc.constants import CONTENT_TYPE, RELATIONSHIP_TYPE
from docx.opc.packuri import PackURI
from docx.opc.part import Part
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from finetune.errors import Unusable
from finetune.prepare.documents.readers import read_document
from finetune.prepare.formats import zip_package
from finetune.records import Document, Section

BOMB_BYTES = 2**22


def word(write: Callable[[Any], None]) -> bytes:
    file = docx.Document()
    write(file)
    data = io.BytesIO()
    file.save(data)
    return data.getvalue()


def with_part(data: bytes, name: str, content: bytes) -> bytes:
    """The archive with one part put in place of the old one."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as new:
        for entry in old.infolist():
            if entry.filename != name:
                new.writestr(entry, old.read(entry))
        new.writestr(name, content)
    return made.getvalue()


def refused(data: bytes, name: str) -> str:
    with pytest.raises(Unusable) as caught:
        read_document(data, name, name)
    return caught.value.reason


def leaflet(file: Any) -> None:
    file.add_heading("Fever", 0)
    file.add_heading("Symptoms", 1)
    paragraph = file.add_paragraph("It is ")
    paragraph.add_run("hot").bold = True
    paragraph.add_run(".")
    file.add_paragraph("shivering", style="List Bullet")
    file.add_paragraph("sweat", style="List Bullet")
    table = file.add_table(2, 2)
    for cell, text in zip([c for row in table.rows for c in row.cells], ["Drug", "Dose", "one", "10 mg"], strict=True):
        cell.text = text
    file.add_paragraph("After the table.")
    file.add_heading("Care", 2)
    file.add_paragraph("Rest.")
    file.sections[0].header.paragraphs[0].text = "CONFIDENTIAL DRAFT"
    file.sections[0].footer.paragraphs[0].text = "Form 27-B"
    file.add_comment(paragraph.runs[0], text="Check this", author="A")


def test_word_file_is_read_in_order_without_head_foot_and_comments() -> None:
    assert read_document(word(leaflet), "a.docx", "a.docx") == Document(
        "Fever",
        (
            Section(
                "Symptoms",
                2,
                "It is hot.\n\n- shivering\n- sweat\n\n| Drug | Dose |\n| --- | --- |\n| one | 10 mg |\n\nAfter the table.",
            ),
            Section("Care", 3, "Rest."),
        ),
        {"header": 1, "footer": 1, "comment": 1},
    )


def test_first_heading_is_the_title_where_none_is_styled_so() -> None:
    def write(file: Any) -> None:
        file.add_heading("Fever", 1)
        file.add_heading("Care", 2)
        file.add_paragraph("Rest.")

    assert read_document(word(write), "a.docx", "a") == Document("Fever", (Section("Care", 2, "Rest."),))


def test_tracked_insertions_and_content_controls_are_text_and_deletions_are_not() -> None:
    def write(file: Any) -> None:
        paragraph = file.add_paragraph("plain ")
        words = nsdecls("w")
        paragraph._p.append(parse_xml(f'<w:ins {words} w:id="1" w:author="a"><w:r><w:t>inserted</w:t></w:r></w:ins>'))
        paragraph._p.append(
            parse_xml(f'<w:del {words} w:id="2" w:author="a"><w:r><w:delText>deleted</w:delText></w:r></w:del>')
        )
        control = f"<w:sdt {words}><w:sdtContent><w:p><w:r><w:t>control</w:t></w:r></w:p></w:sdtContent></w:sdt>"
        file.element.body.insert(1, parse_xml(control))

    assert read_document(word(write), "a.docx", "a").sections[0].text == "plain inserted\n\ncontrol"


SPACES = {
    "w": "http://schemas.openxmlformats.org/wordprocessingml/2006/main",
    "m": "http://schemas.openxmlformats.org/officeDocument/2006/math",
    "mc": "http://schemas.openxmlformats.org/markup-compatibility/2006",
    "a": "http://schemas.openxmlformats.org/drawingml/2006/main",
    "wp": "http://schemas.openxmlformats.org/drawingml/2006/wordprocessingDrawing",
    "wps": "http://schemas.microsoft.com/office/word/2010/wordprocessingShape",
    "w14": "http://schemas.microsoft.com/office/word/2010/wordml",
    "v": "urn:schemas-microsoft-com:vml",
}


def word_of(body: str) -> bytes:
    """A Word file with the given XML between two paragraphs."""

    def write(file: Any) -> None:
        file.add_paragraph("Before.")
        file.add_paragraph("After.")
        declared = " ".join(f'xmlns:{name}="{space}"' for name, space in SPACES.items())
        for element in reversed(parse_xml(f"<w:body {declared}>{body}</w:body>")):
            file.element.body.insert(1, element)

    return word(write)


def paragraph(*runs: str) -> str:
    return f"<w:p>{''.join(runs)}</w:p>"


def run(text: str, properties: str = "") -> str:
    return f'<w:r><w:rPr>{properties}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r>'


def choice(control: str) -> str:
    return f"<w:r><w:fldChar w:fldCharType='begin'><w:ffData>{control}</w:ffData></w:fldChar></w:r>"


def maths(contents: str) -> str:
    return f"<m:oMath>{contents}</m:oMath>"


def letters(text: str) -> str:
    return f"<m:r><m:t>{text}</m:t></m:r>"


BOX = f"<w:txbxContent>{paragraph(run('Ring the porter.'))}</w:txbxContent>"
SHAPE = (
    f'<w:drawing><wp:inline><a:graphic><a:graphicData uri="{SPACES["wps"]}"><wps:wsp><wps:txbx>{BOX}</wps:txbx></wps:wsp>'
    "</a:graphicData></a:graphic></wp:inline></w:drawing>"
)
OLD_SHAPE = f"<w:pict><v:shape><v:textbox>{BOX}</v:textbox></v:shape></w:pict>"
BOTH = (
    f"<mc:AlternateContent><mc:Choice>{SHAPE}</mc:Choice><mc:Fallback>{OLD_SHAPE}</mc:Fallback></mc:AlternateContent>"
)
CHART = '<w:drawing><wp:inline><a:graphic><a:graphicData uri="urn:x/2006/{0}"/></a:graphic></wp:inline></w:drawing>'
HIDDEN = run("hidden", "<w:vanish/>")
DELETION = "<w:del w:id='1' w:author='a'><w:r><w:delText>old</w:delText></w:r></w:del>"
PROMPT = "<w:sdt><w:sdtPr>{0}</w:sdtPr><w:sdtContent>{1}</w:sdtContent></w:sdt>"
TICK = PROMPT.format('<w14:checkbox><w14:checked w14:val="{0}"/></w14:checkbox>', run("x"))
FIELDS = "<w:ddList><w:result w:val='1'/><w:listEntry w:val='red'/><w:listEntry w:val='blue'/></w:ddList>"


@pytest.mark.parametrize(
    ("body", "expected", "unused"),
    [
        (paragraph(run("a"), f"<w:r>{SHAPE}</w:r>", run("b")), "ab\n\nRing the porter.", {}),
        (paragraph(f"<w:r>{OLD_SHAPE}</w:r>"), "Ring the porter.", {}),
        (paragraph(f"<w:r>{BOTH}</w:r>"), "Ring the porter.", {}),
        (paragraph(f"<w:r>{CHART.format('chart')}{CHART.format('picture')}</w:r>", run("a")), "a", {"chart": 1, "picture": 1}),
        (paragraph(run("a"), HIDDEN), "a", {"hidden text": 1}),
        (paragraph(run("shown", '<w:vanish w:val="0"/>')), "shown", {}),
        (paragraph(DELETION, run("a")), "a", {"tracked deletion": 1}),
        (paragraph("<w:fldSimple w:instr='DATE'>" + run("May") + "</w:fldSimple>"), "May", {}),
        (paragraph("<w:bdo w:val='rtl'>" + run("May") + "</w:bdo>", "<w:r><w:cr/></w:r>", run("June")), "May\nJune", {}),
        (
            paragraph(f"<w:r><w:ruby><w:rt>{run('とう')}</w:rt><w:rubyBase>{run('塔')}</w:rubyBase></w:ruby></w:r>"),
            "塔",
            {"reading of a character": 1},
        ),
        (paragraph(TICK.format(1), run(" ready "), TICK.format(0), run(" late")), "☒ ready ☐ late", {}),
        (paragraph(run("Colour: "), choice(FIELDS)), "Colour: blue", {}),
        (paragraph(run("Name: "), PROMPT.format("<w:showingPlcHdr/>", run("Click here"))), "Name:", {"form field": 1}),
        ("<w:altChunk/>" + paragraph(run("a")), "a", {"embedded document": 1}),
    ],
)  # fmt: skip
def test_parts_of_a_word_file_are_text_or_counted(body: str, expected: str, unused: dict[str, int]) -> None:
    document = read_document(word_of(body), "a.docx", "a")
    assert document.sections[0].text == f"Before.\n\n{expected}\n\nAfter."
    assert document.unused == unused


def test_text_that_its_style_hides_is_counted() -> None:
    def write(file: Any) -> None:
        file.styles.add_style("Notes", 1).font.hidden = True
        file.add_paragraph("Seen.")
        file.add_paragraph("Unseen.", style="Notes")

    document = read_document(word(write), "a.docx", "a")
    assert (document.sections[0].text, document.unused) == ("Seen.", {"hidden text": 1})


def test_merged_cells_of_a_word_file_leave_the_others_in_their_columns() -> None:
    def write(file: Any) -> None:
        table = file.add_table(3, 3)
        for row, words in zip(table.rows, ["Pin Use Way", "1 Signal in", "2 - out"], strict=True):
            for cell, text in zip(row.cells, words.split(), strict=True):
                cell.text = text
        table.cell(2, 1).text = ""
        table.cell(1, 1).merge(table.cell(2, 1))

    lines = read_document(word(write), "a.docx", "a").sections[0].text.split("\n")
    assert [line.rpartition("|")[0].rpartition("|")[2].strip() for line in lines[2:]] == ["in", "out"]


WORD_CANARIES = {  # by place: the XML of a paragraph, and what is counted where the canary is no text
    "plain": (run("CANARY"), ""),
    "link": (f'<w:hyperlink w:anchor="x">{run("CANARY")}</w:hyperlink>', ""),
    "insertion": (f'<w:ins w:id="1" w:author="a">{run("CANARY")}</w:ins>', ""),
    "moved": (f'<w:moveTo w:id="1" w:author="a">{run("CANARY")}</w:moveTo>', ""),
    "deletion": (DELETION.replace("old", "CANARY"), "tracked deletion"),
    "control": (PROMPT.format("", run("CANARY")), ""),
    "prompt": (PROMPT.format("<w:showingPlcHdr/>", run("CANARY")), "form field"),
    "smart tag": (f"<w:smartTag>{run('CANARY')}</w:smartTag>", ""),
    "field": (f'<w:fldSimple w:instr="X">{run("CANARY")}</w:fldSimple>', ""),
    "choice": (choice("<w:ddList><w:listEntry w:val='CANARY'/></w:ddList>"), ""),
    "box": (f"<w:r>{SHAPE.replace('Ring the porter.', 'CANARY')}</w:r>", ""),
    "old box": (f"<w:r>{OLD_SHAPE.replace('Ring the porter.', 'CANARY')}</w:r>", ""),
    "equation": (maths(letters("CANARY")), ""),
    "display": (f"<m:oMathPara>{maths(letters('CANARY'))}</m:oMathPara>", ""),
    "hidden": (run("CANARY", "<w:vanish/>"), "hidden text"),
    "capitals": (run("CANARY", "<w:caps/>"), ""),
    "raised": (run("CANARY", '<w:vertAlign w:val="superscript"/>'), ""),
    "struck": (run("CANARY", "<w:strike/>"), ""),
    "note": ('<w:r><w:footnoteReference w:id="2"/></w:r>', ""),
    "chart": (f"<w:r>{CHART.format('chart')}</w:r>", "chart"),
    "diagram": (f"<w:r>{CHART.format('diagram')}</w:r>", "diagram"),
    "WordArt": ('<w:r><w:pict><v:shape><v:textpath string="CANARY"/></v:shape></w:pict></w:r>', "WordArt"),
    "object": ("<w:r><w:object/></w:r>", "embedded object"),
}


@pytest.mark.parametrize("place", WORD_CANARIES)
def test_canary_in_a_word_file_is_text_or_counted(place: str) -> None:
    contents, name = WORD_CANARIES[place]
    file = docx.Document(io.BytesIO(word_of(paragraph(contents))))
    note = f'<w:footnotes xmlns:w="{SPACES["w"]}"><w:footnote w:id="2">{paragraph(run("CANARY"))}</w:footnote></w:footnotes>'
    package = file.part.package
    assert package is not None
    notes = Part(PackURI("/word/footnotes.xml"), CONTENT_TYPE.WML_FOOTNOTES, note.encode(), package)
    file.part.relate_to(notes, RELATIONSHIP_TYPE.FOOTNOTES)
    data = io.BytesIO()
    file.save(data)
    document = read_document(data.getvalue(), "a.docx", "a")
    assert ("CANARY" in document.sections[0].text, dict(document.unused)) == (not name, {name: 1} if name else {})


def part(name: str, text: str) -> str:
    return f"<m:{name}>{letters(text)}</m:{name}>"


def value(tag: str, name: str, text: str) -> str:
    return f'<m:{tag}><m:{name} m:val="{text}"/></m:{tag}>'


@pytest.mark.parametrize(
    ("equation", "expected"),
    [
        (letters("E=m") + f"<m:sSup>{part('e', 'c')}{part('sup', '2')}</m:sSup>", "E=mc^2"),
        (f"<m:rad><m:deg/><m:e><m:f>{part('num', 'l')}{part('den', 'g')}</m:f></m:e></m:rad>", r"\sqrt{\frac{l}{g}}"),
        (f"<m:rad>{part('deg', '3')}{part('e', 'x')}</m:rad>", r"\sqrt[3]{x}"),
        (f"<m:f>{value('fPr', 'type', 'lin')}{part('num', '1')}{part('den', '2')}</m:f>", "1/2"),
        (f"<m:sSubSup>{part('e', 'x')}{part('sub', 'max')}{part('sup', '2')}</m:sSubSup>", "x_{max}^2"),
        (f"<m:sPre>{part('sub', '6')}{part('sup', '14')}{part('e', 'C')}</m:sPre>", "{}_6^{14}C"),
        (f"<m:nary>{value('naryPr', 'chr', '∑')}{part('sub', 'i')}{part('sup', 'n')}{part('e', 'x')}</m:nary>", "∑_i^n x"),
        (f"<m:d>{value('dPr', 'begChr', '{')}{part('e', 'a')}{part('e', 'b')}</m:d>", r"\{a|b)"),
        (f"<m:func>{part('fName', 'sin')}{part('e', 'x')}</m:func>", r"\sin x"),
        (f"<m:limLow>{part('e', 'lim')}{part('lim', 'n→∞')}</m:limLow>", r"\lim_{n→∞}"),
        (f"<m:acc>{value('accPr', 'chr', chr(0x20D7))}{part('e', 'v')}</m:acc>", r"\vec{v}"),
        (f"<m:bar>{value('barPr', 'pos', 'top')}{part('e', 'x')}</m:bar>", r"\overline{x}"),
        (f"<m:m><m:mr>{part('e', 'a')}{part('e', 'b')}</m:mr></m:m>", r"\begin{matrix} a & b \end{matrix}"),
        (f"<m:eqArr>{part('e', 'a=1')}{part('e', 'b=2')}</m:eqArr>", r"a=1 \\ b=2"),
        (f"<m:box>{part('e', 'a')}</m:box>", "a"),
    ],
)  # fmt: skip
def test_equation_of_a_word_file_is_latex(equation: str, expected: str) -> None:
    inline = paragraph(run("It is "), maths(equation), run(" here."))
    display = paragraph(f"<m:oMathPara>{maths(equation)}</m:oMathPara>")
    text = read_document(word_of(inline + display), "a.docx", "a").sections[0].text
    assert text == f"Before.\n\nIt is ${expected}$ here.\n\n${expected}$\n\nAfter."


def test_paragraph_in_bold_stands_for_a_heading() -> None:
    def write(file: Any) -> None:
        for text, bold in [("Is it bad?", True), ("No.", False), ("Can it be treated?", True), ("Yes.", False)]:
            file.add_paragraph().add_run(text).bold = bold

    sections = read_document(word(write), "a.docx", "a").sections
    assert [(section.heading, section.text) for section in sections] == [
        ("Is it bad?", "No."),
        ("Can it be treated?", "Yes."),
    ]


def test_word_file_without_text_says_so() -> None:
    assert refused(word(lambda file: None), "a.docx") == "no_text"


@pytest.mark.parametrize("kept", [100, 5000])
def test_damaged_word_file_is_refused(kept: int) -> None:
    data = word(leaflet)
    assert refused(data[:kept], "a.docx") == "damaged_docx"
    assert refused(b"not a zip archive", "a.docx") == "damaged_docx"
    assert refused(with_part(data, "word/document.xml", b"<w:document"), "a.docx") == "damaged_docx"
    other = io.BytesIO()
    with zipfile.ZipFile(other, "w") as archive:
        archive.writestr("a.txt", "text")
    assert refused(other.getvalue(), "a.docx") == "damaged_docx"


def test_word_file_with_a_password_is_refused() -> None:
    assert refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(2000), "a.docx") == "encrypted_docx"


@pytest.mark.parametrize("codec", ["utf-8", "utf-16-le"])
def test_entities_in_a_word_file_are_refused(codec: str) -> None:
    xml = '<?xml version="1.0"?><!DOCTYPE a [<!ENTITY a "lol">]><a>&a;</a>'
    assert refused(with_part(word(leaflet), "word/document.xml", xml.encode(codec)), "a.docx") == "xml_entities"


@pytest.mark.parametrize("name", ["a.docx", "a.epub"])
def test_bomb_is_refused_before_it_is_unpacked(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = with_part(word(leaflet), "word/document.xml", bytes(50 * BOMB_BYTES))
    assert refused(data, name) == "bomb"
    monkeypatch.setattr(zip_package, "MAX_PARTS", 3)
    assert refused(word(leaflet), name) == "bomb"


# --- EPUB -------------------------------------------------------------------------------------------------------------

CONTAINER = """<?xml version="1.0"?><container xmlns="urn:oasis:names:tc:opendocument:xmlns:container" version="1.0">
<rootfiles><rootfile full-path="OEBPS/book.opf" media-type="application/oebps-package+xml"/></rootfiles></container>"""
BOOK = """<?xml version="1.0"?><package xmlns="http://www.idpf.org/2007/opf" version="3.0">
<metadata xmlns:dc="http://purl.org/dc/elements/1.1/"><dc:title>On Fever</dc:title></metadata><manifest>
<item id="two" href="text/two%20b.xhtml" media-type="application/xhtml+xml"/>
<item id="one" href="text/one.xhtml" media-type="application/xhtml+xml"/>
<item id="nav" href="nav.xhtml" media-type="application/xhtml+xml" properties="nav"/>
<item id="cover" href="cover.png" media-type="image/png"/></manifest>
<spine><itemref idref="cover"/><itemref idref="nav"/><itemref idref="one"/><itemref idref="two"/></spine></package>"""
CHAPTER = """<?xml version="1.0" encoding="utf-8"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title>x</title></head>
<body><section><h1>{0}</h1><p>Text of {0}.</p><aside hidden="hidden">note</aside></section></body></html>"""


def book(**parts: str) -> bytes:
    contents = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": CONTAINER,
        "OEBPS/book.opf": BOOK,
        "OEBPS/nav.xhtml": CHAPTER.format("Contents"),
        "OEBPS/text/one.xhtml": CHAPTER.format("Heat"),
        "OEBPS/text/two b.xhtml": CHAPTER.format("Care"),
    } | {name.replace("__", "/").replace("_", "."): text for name, text in parts.items()}
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for name, text in contents.items():
            archive.writestr(name, text)
    return data.getvalue()


def test_book_is_read_in_the_order_of_its_spine() -> None:
    assert read_document(book(), "a.epub", "a.epub") == Document(
        "On Fever",
        (Section("Heat", 1, "Text of Heat."), Section("Care", 1, "Text of Care.")),
        {"hidden element": 2, "picture": 1, "table of contents": 1},
    )


def test_protected_book_is_refused_and_obfuscated_fonts_are_not() -> None:
    method = '<encryption><EncryptedData><EncryptionMethod Algorithm="{}"/></EncryptedData></encryption>'
    protected = method.format("http://www.w3.org/2001/04/xmlenc#aes128-cbc")
    assert refused(with_part(book(), "META-INF/encryption.xml", protected.encode()), "a.epub") == "encrypted_epub"
    fonts = method.format("http://www.idpf.org/2008/embedding")
    assert (
        read_document(with_part(book(), "META-INF/encryption.xml", fonts.encode()), "a.epub", "a").title == "On Fever"
    )


@pytest.mark.parametrize("name", ["META-INF/container.xml", "OEBPS/book.opf"])
def test_damaged_book_is_refused(name: str) -> None:
    assert refused(with_part(book(), name, b"<broken"), "a.epub") == "damaged_epub"
    assert refused(book()[:500], "a.epub") == "damaged_epub"


def test_chapter_that_is_missing_is_counted_by_its_name() -> None:
    document = read_document(
        with_part(book(), "OEBPS/book.opf", BOOK.replace("text/one", "text/none").encode()), "a.epub", "a"
    )
    assert (document.title, document.sections[0].text) == ("Care", "Text of Care.")
    assert document.unused.items() >= {"missing chapter none.xhtml": 1}.items()


@pytest.mark.parametrize("chapter", ["", " ", "<!-- none -->"])
def test_empty_chapter_leaves_the_others(chapter: str) -> None:
    document = read_document(with_part(book(), "OEBPS/text/one.xhtml", chapter.encode()), "a.epub", "a")
    assert document.title == "Care"


def test_what_a_book_has_beside_its_chapters_is_counted() -> None:
    more = '<item id="x" href="x.xhtml" media-type="text/html"/><item id="y" href="y.mp3" media-type="audio/mpeg"/></manifest>'
    data = with_part(book(), "OEBPS/book.opf", BOOK.replace("</manifest>", more).encode())
    assert (
        read_document(data, "a.epub", "a").unused.items()
        >= {
            "picture": 1,
            "sound": 1,
            "table of contents": 1,
            "page outside the reading order": 1,
        }.items()
    )


@pytest.mark.parametrize("name", ["OEBPS/book.opf", "META-INF/container.xml"])
def test_book_with_a_document_type_is_read(name: str) -> None:
    old = {"OEBPS/book.opf": BOOK, "META-INF/container.xml": CONTAINER}[name]
    declared = old.replace(
        "?>", '?><!DOCTYPE package PUBLIC "+//ISBN//DTD OEB 1.2 Package//EN" "http://openebook.org/a.dtd">', 1
    )
    assert read_document(with_part(book(), name, declared.encode()), "a.epub", "a").title == "On Fever"


def test_book_without_text_says_so() -> None:
    empty = "<html><body></body></html>"
    data = with_part(
        with_part(book(), "OEBPS/text/one.xhtml", empty.encode()), "OEBPS/text/two b.xhtml", empty.encode()
    )
    assert refused(data, "a.epub") == "no_text"


PAGE = '<item id="x" href="x.xhtml" media-type="application/xhtml+xml"/></manifest>'
IN_SPINE = '<itemref idref="x" linear="no"/></spine>'
BOOK_CANARIES = {  # by place: what of the list of contents changes, into what, and what is counted beside the cover
    "chapter": ("</manifest>", PAGE, "</spine>", IN_SPINE, ""),
    "outside": ("</manifest>", PAGE, "</spine>", "</spine>", "page outside the reading order"),
    "contents": (
        "</manifest>",
        PAGE.replace("/></m", ' properties="nav"/></m'),
        "</spine>",
        IN_SPINE,
        "table of contents",
    ),
    "old chapter": (
        "</manifest>",
        PAGE.replace("application/xhtml+xml", "text/x-oeb1-document"),
        "</spine>",
        IN_SPINE,
        "",
    ),
    "not there": ("</manifest>", PAGE.replace("x.xhtml", "y.xhtml"), "</spine>", IN_SPINE, "missing chapter y.xhtml"),
    "not listed": ("</manifest>", "</manifest>", "</spine>", IN_SPINE, "missing chapter"),
}


@pytest.mark.parametrize("place", BOOK_CANARIES)
def test_canary_in_a_book_is_text_or_counted(place: str) -> None:
    one, items, other, spine, name = BOOK_CANARIES[place]
    data = with_part(book(), "OEBPS/book.opf", BOOK.replace(one, items).replace(other, spine).encode())
    usual = read_document(book(), "a.epub", "a").unused
    document = read_document(with_part(data, "OEBPS/x.xhtml", b"<p>CANARY</p>"), "a.epub", "a")
    more = {key: count - usual.get(key, 0) for key, count in document.unused.items() if count != usual.get(key, 0)}
    assert (any("CANARY" in section.text for section in document.sections), more) == (
        not name,
        {name: 1} if name else {},
    )


def test_entities_in_a_book_are_refused() -> None:
    xml = BOOK.replace("<package", '<!DOCTYPE a [<!ENTITY a "lol">]><package')
    assert refused(with_part(book(), "OEBPS/book.opf", xml.encode()), "a.epub") == "xml_entities"
