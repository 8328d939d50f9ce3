"""Word documents: headings, paragraphs, lists and tables in reading order, without heads, feet and comments.

Read with mammoth (BSD-2-Clause), which gives HTML. python-docx passes over text in tracked insertions, content controls
and footnotes, and numbering is left to its user; markitdown is mammoth with more dependencies. All three have every
text of the test data's three files; figures by benchmarks/document_readers.py. mammoth is slower, 0.3 s a leaflet.
"""

from __future__ import annotations

import io
import logging
import re

from finetune.prepare.columns import Unusable
from finetune.prepare.documents import package
from finetune.prepare.documents.html import parse
from finetune.prepare.documents.markup import outline_of
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
    """A document's text; its title is the paragraph in the style Title, else its one first heading of level 1.

    Raises:
        Unusable: it is damaged, has a password, or has no text.
    """
    import mammoth

    if data.startswith(OLE2):
        raise Unusable("encrypted_docx", "it has a password, or is a .doc file. Save it as .docx without a password")
    with package.opened(data, "docx") as parts:
        if not any(name.startswith("word/") for name in parts.names):
            raise package.damaged("docx")
        for name in sorted(parts.names):
            if name.endswith((".xml", ".rels")):
                package.refuse_doctype(parts.part(name) or b"")
    logging.getLogger("mammoth").setLevel(logging.CRITICAL)
    try:
        page = mammoth.convert_to_html(
            io.BytesIO(data),
            style_map=STYLES,
            convert_image=lambda _: [],
            include_embedded_style_map=False,
            external_file_access=False,
        ).value
    except Exception:  # mammoth takes what XML says for granted and raises whatever comes
        raise package.damaged("docx") from None
    if not page.strip():
        raise Unusable("no_text", "the document has no text. Leave it out with --on-error skip")
    page = BACK_LINK.sub("", page)
    if TITLE not in page:
        page = LOWERED.sub(lambda match: f"<{match[1]}h{int(match[2]) - 1}>", page)
    return outline_of(parse(page)).document()
