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
from collections import Counter

import mammoth
from lxml import etree

from finetune.prepare.documents.docx_numbers import Numbering
from finetune.prepare.documents.docx_parts import LABEL_END, bare_styles, hidden_styles, simplify
from finetune.prepare.documents.elements import tag_of
from finetune.prepare.documents.html import parse
from finetune.prepare.documents.list_numbers import BULLET, LABEL
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.formats import zip_package
from finetune.prepare.formats.safe_xml import parse_xml
from finetune.records import Document

STYLES = "\n".join(
    [
        "p[style-name='Title'] => h1.title:fresh",
        "p[style-name='Subtitle'] => p:fresh",
        *(f"p[style-name^='Heading {level}'] => h{min(level + 1, 6)}:fresh" for level in range(1, 7)),
    ]
)
TITLE = '<h1 class="title">'
LOWERED = re.compile(r"<(/?)h([2-6])>")  # one level below the title, which is missing
TICKED = re.compile(r"<input[^<>]*>")
ITEM = re.compile(rf'<li>([^<>"]*){LABEL_END}')
NO_LABEL = re.compile(rf"(?<=>){BULLET}{LABEL_END}")  # of a heading, say, in the style of a list
BACK_LINK = re.compile(r'<a href="#(?:foot|end)note-ref-[^"]*">[^<]*</a>')


def read(data: bytes, shown: str) -> Document:
    """The text of a document; its title is the paragraph with the style Title, else its only heading of level 1.

    Raises:
        Unusable: it is damaged, is protected by a password, or has no text.
    """
    with zip_package.open_package(data, "docx") as parts:
        if not any(name.startswith("word/") for name in parts.names):
            raise zip_package.damage_error("docx")
        unused: Counter[str] = Counter()
        needed = _needed_parts(parts, unused)
    logging.getLogger("mammoth").setLevel(logging.CRITICAL)
    try:
        result = mammoth.convert_to_html(
            needed,
            style_map=STYLES,
            convert_image=lambda _: [],
            include_embedded_style_map=False,
            external_file_access=False,
        )
    except Exception:  # mammoth does not validate its XML and raises all kinds of errors
        raise zip_package.damage_error("docx") from None
    unused["symbol"] += sum("w:sym" in message.message for message in result.messages)
    page = TICKED.sub(lambda box: "☒" if "checked=" in box[0] else "☐", BACK_LINK.sub("", result.value))
    page = NO_LABEL.sub("", ITEM.sub(rf'<li {LABEL}="\1">', page)).replace(LABEL_END, " ")
    if TITLE not in page:
        page = LOWERED.sub(lambda match: f"<{match[1]}h{int(match[2]) - 1}>", page)
    return outline_of(parse(page), unused).document()


def _needed_parts(parts: zip_package.ZipPackage, unused: Counter[str]) -> io.BytesIO:
    """The document without pictures, and with all text where mammoth looks for it."""
    data = {name: parts.part(name) or b"" for name in sorted(parts.names) if name.endswith((".xml", ".rels"))}
    for part in data.values():
        zip_package.refuse_entities(part)
    trees = {name: root for name, part in data.items() if (root := parse_xml(part)) is not None}
    styles = [root for root in trees.values() if tag_of(root) == "styles"]
    numbering = Numbering([root for root in trees.values() if tag_of(root) == "numbering"], styles)
    hidden = frozenset[str]().union(*map(hidden_styles, styles))
    for root in styles:
        bare_styles(root)
    for root in trees.values():
        simplify(root, hidden, numbering, unused)
    package = io.BytesIO()
    with zipfile.ZipFile(package, "w") as archive:
        for name, part in data.items():
            archive.writestr(name, etree.tostring(trees[name]) if name in trees else part)
    package.seek(0)
    return package
