"""Word documents: headings, paragraphs, lists and tables in reading order, without heads, feet and comments.

Read with mammoth (BSD-2-Clause), which gives HTML. On three files none of mammoth, python-docx and markitdown loses
words (benchmarks/parts/document_readers.py; markitdown, which is mammoth with more dependencies, breaks one text by emphasis
signs). But python-docx passes over tracked insertions, content controls and footnotes, and leaves numbering to its
user. mammoth takes 470 ms per leaflet, nearly all of it for Word's usual styles; without them it is 50, python-docx 20.
"""

from __future__ import annotations

import io
import logging
import re
import zipfile

import mammoth
from lxml import etree

from finetune.errors import Unusable
from finetune.prepare.documents import zip_package
from finetune.prepare.documents.html import parse
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.documents.markup_tables import tag_of
from finetune.prepare.documents.safe_xml import parse_xml
from finetune.records import Document

OLE2 = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"  # how Word wraps a document with a password, and .doc files begin
STYLES = """
p[style-name='Title'] => h1.title:fresh
p[style-name='Subtitle'] => p:fresh
p[style-name^='Heading 1'] => h2:fresh
p[style-name^='Heading 2'] => h3:fresh
p[style-name^='Heading 3'] => h4:fresh
p[style-name^='Heading 4'] => h5:fresh
p[style-name^='Heading 5'] => h6:fresh
p[style-name^='Heading 6'] => h6:fresh
"""
TITLE = '<h1 class="title">'
LOWERED = re.compile(r"<(/?)h([2-6])>")  # one level below the title, which is missing
BACK_LINK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">[^<]*</a>')


def read(data: bytes, shown: str) -> Document:
    """The text of a document; its title is the paragraph with the style Title, else its only heading of level 1.

    Raises:
        Unusable: it is damaged, is protected by a password, or has no text.
    """
    if data.startswith(OLE2):
        raise Unusable("encrypted_docx", "it has a password or is a .doc file. Save it as .docx without a password")
    with zip_package.open_package(data, "docx") as parts:
        if not any(name.startswith("word/") for name in parts.names):
            raise zip_package.damage_error("docx")
        needed = _needed_parts(parts)
    logging.getLogger("mammoth").setLevel(logging.CRITICAL)
    try:
        page = mammoth.convert_to_html(
            needed,
            style_map=STYLES,
            convert_image=lambda _: [],
            include_embedded_style_map=False,
            external_file_access=False,
        ).value
    except Exception:  # mammoth does not validate its XML and raises all kinds of errors
        raise zip_package.damage_error("docx") from None
    if not page.strip():
        raise Unusable("no_text", "the document has no text. Skip it with --on-error skip")
    page = BACK_LINK.sub("", page)
    if TITLE not in page:
        page = LOWERED.sub(lambda match: f"<{match[1]}h{int(match[2]) - 1}>", page)
    return outline_of(parse(page)).document()


def _needed_parts(parts: zip_package.ZipPackage) -> io.BytesIO:
    """The document without pictures, and with only the names and numbering of its styles.

    mammoth builds a tree of all styles with the standard library; for Word's usual styles, this takes ten times as long
    as for the text of a leaflet.
    """
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name in sorted(parts.names):
            if name.endswith((".xml", ".rels")):
                data = parts.part(name) or b""
                zip_package.refuse_doctype(data)
                archive.writestr(name, _bare_styles(data) if name.endswith("styles.xml") else data)
    package.seek(0)
    return package


def _bare_styles(data: bytes) -> bytes:
    root = parse_xml(data)
    if root is None:
        raise zip_package.damage_error("docx")
    for element in list(root):
        if tag_of(element) != "style":
            root.remove(element)
        for child in list(element):
            if tag_of(child) not in {"name", "ppr"}:
                element.remove(child)
    return etree.tostring(root)
