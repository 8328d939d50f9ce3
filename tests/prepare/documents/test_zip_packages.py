"""Documents that are zip archives of XML: Word files and EPUB books."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from typing import Any

import docx
import pytest
from docx.oxml import parse_xml
from docx.oxml.ns import nsdecls

from finetune.errors import Unusable
from finetune.prepare.documents import zip_package
from finetune.prepare.documents.readers import read_document
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
        "On Fever", (Section("Heat", 1, "Text of Heat."), Section("Care", 1, "Text of Care.")), {"hidden element": 2}
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


def test_chapter_that_is_missing_is_damage() -> None:
    data = with_part(book(), "OEBPS/book.opf", BOOK.replace("text/one", "text/none").encode())
    assert refused(data, "a.epub") == "damaged_epub"


def test_book_without_text_says_so() -> None:
    empty = "<html><body></body></html>"
    data = with_part(
        with_part(book(), "OEBPS/text/one.xhtml", empty.encode()), "OEBPS/text/two b.xhtml", empty.encode()
    )
    assert refused(data, "a.epub") == "no_text"


def test_entities_in_a_book_are_refused() -> None:
    xml = BOOK.replace("<package", '<!DOCTYPE a [<!ENTITY a "lol">]><package')
    assert refused(with_part(book(), "OEBPS/book.opf", xml.encode()), "a.epub") == "xml_entities"
