"""Reads any XML: elements named like titles are headings, other elements with text are paragraphs.

Uses lxml (BSD-3-Clause), which the HTML reader needs anyway, with entities off. A file that declares entities is refused:
replaced, they can grow without limit ("billion laughs") or read other files; not replaced, text would be missing.
"""

from __future__ import annotations

import re

from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents.markup import all_text, block_of, outline_of
from finetune.prepare.documents.markup_tables import tag_of
from finetune.prepare.documents.outline import Outline, one_line
from finetune.prepare.documents.safe_xml import parse_xml
from finetune.prepare.documents.zip_package import damage_error
from finetune.records import Document

MAX_XML = 64 * 2**20  # bytes: a tree takes about ten times as much
HEADINGS = frozenset(("title", "head", "heading", "header", "article-title", "subject", "question"))
PARAGRAPHS = frozenset(("p", "para", "paragraph", "abstract-text", "abstracttext", "answer", "li", "item"))
ITEMS = frozenset(("li", "item", "list-item", "listitem"))
LISTS = frozenset(("list", "ul", "ol", "itemizedlist", "orderedlist", "bulletlist"))
# Elements about a text rather than part of it, in JATS, DocBook and TEI.
ABOUT = frozenset(("ref-list", "reflist", "references", "bibliography", "biblioentry", "script", "style", "metadata"))
ENTITY = re.compile(rb"<!ENTITY", re.I)
SENTENCE = re.compile(r"[^\W\d_]")


def read(data: bytes, shown: str) -> Document:
    """The headings and paragraphs of an XML file; XHTML is read as a page.

    Raises:
        Unusable: it is not well-formed, declares entities, is too large, or has no text.
    """
    if len(data) > MAX_XML:
        raise Unusable("too_large", f"the file has more than {MAX_XML // 2**20} MiB of XML. Split it")
    if not data.strip():
        raise Unusable("no_text", "the file is empty or blank. Skip it with --on-error skip")
    if ENTITY.search(data.replace(b"\0", b"")):
        raise Unusable(
            "xml_entities", "it declares XML entities. Write them out in the text and remove the declarations"
        )
    root = parse_xml(data)
    if root is None:
        raise damage_error("xml")
    if tag_of(root) == "html":
        return outline_of(root).document()
    outline = Outline()
    _walk(root, outline, 1)
    return outline.document()


def _walk(element: Element, outline: Outline, level: int) -> None:
    """Add the text below an element; each element with a heading makes the headings inside it one level deeper."""
    below = level + 1 if any(tag_of(child) in HEADINGS for child in element) else level
    for child in element:
        tag = tag_of(child)
        if tag in HEADINGS:
            outline.heading(_text(child), level)
        elif tag == "table":
            outline.extend(block_of(child))
        elif tag in LISTS:
            outline.block("\n".join(f"- {_text(item)}" for item in child if tag_of(item) in ITEMS and _text(item)))
        elif tag and tag not in ABOUT:
            _part(child, tag, outline, below)


def _part(element: Element, tag: str, outline: Outline, level: int) -> None:
    if len(element) and not _is_mixed(element):
        _walk(element, outline, level)
        return
    text = _text(element)
    # Numbers, dates and identifiers are fields of a record, not text.
    if text and (tag in PARAGRAPHS or " " in text) and SENTENCE.search(text):
        outline.block(text)


def _is_mixed(element: Element) -> bool:
    """Whether there is text between the children of an element, which then are parts of a sentence."""
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)


def _text(element: Element) -> str:
    if _is_mixed(element):
        return one_line(all_text(element))
    return one_line(" ".join(str(piece) for piece in element.itertext()))
