"""Reads any XML: elements named like titles are headings, other elements with text are paragraphs.

Uses lxml (BSD-3-Clause), which the HTML reader needs anyway, with entities off. A file that declares entities is refused:
replaced, they can grow without limit ("billion laughs") or read other files; not replaced, text would be missing.
"""

from __future__ import annotations

import re

from lxml import etree
from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.elements import all_text, replace_with_text, tag_of
from finetune.prepare.documents.formulas import write_formula
from finetune.prepare.documents.html import page_outline, page_title, parse
from finetune.prepare.documents.list_numbers import BULLET, ITEMS, LABEL, labels_of
from finetune.prepare.documents.markup import BLOCKS, block_of
from finetune.prepare.documents.outline import Outline, code, one_line
from finetune.prepare.formats.safe_xml import parse_xml
from finetune.prepare.formats.zip_package import damage_error
from finetune.records import Document

MAX_XML = 64 * 2**20  # bytes: a tree takes about ten times as much
HEADINGS = frozenset(("title", "head", "heading", "header", "article-title", "subject", "question"))
# Elements that are text however short they are.
PARAGRAPHS = frozenset(
    """p para paragraph simpara formalpara abstract-text abstracttext abstract answer li item l quote description summary
    content encoded text body note comment seg string message caption""".split()
)
LISTS = frozenset(("list", "ul", "ol", "itemizedlist", "orderedlist", "bulletlist"))
CODE = frozenset(("programlisting", "screen", "literallayout", "preformat", "codeblock", "pre"))
PARTS = frozenset(("sec", "section", "chapter", "part", "div", "table")) | PARAGRAPHS | LISTS | CODE | BLOCKS
RAISED, LOWERED = frozenset(("sup", "superscript")), frozenset(("sub", "subscript"))
# Elements about a text rather than part of it, in JATS, DocBook and TEI.
ABOUT = frozenset(("ref-list", "reflist", "references", "bibliography", "biblioentry", "script", "style", "metadata"))
# What feeds give in brief, and the element with the full text.
FULL = {"description": "encoded", "summary": "content"}
NO_PROSE = frozenset(("class", "style", "schemalocation"))  # attributes with several words
ENTITY = re.compile(rb"<!ENTITY", re.I)
HTML = re.compile(r"</(?:p|div|li|a|b|i|em|strong|span|h[1-6]|td|pre|code)\s*>|<(?:br|img)\b[^<>]*>", re.I)
DATE = re.compile(r".*date|published|updated|created|modified")
LETTER = re.compile(r"[^\W\d_]")


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
    root = parse_xml(data, comments=True)
    if root is None:
        raise damage_error("xml")
    if tag_of(root) == "html":
        return page_outline(root, whole=True).document(page_title(root))
    outline = Outline()
    outline.unused["comment"] += sum(1 for _ in root.iter(etree.Comment))
    etree.strip_tags(root, etree.Comment)
    if len(root) and tag_of(root) not in {"table"} | LISTS:
        _walk(root, outline, 1)
    else:
        _part(root, tag_of(root), outline, 1)
    return outline.document()


def _walk(element: Element, outline: Outline, level: int) -> None:
    """Add the text in an element; each element with a heading makes the headings inside it one level deeper."""
    below = level + 1 if any(tag_of(child) in HEADINGS for child in element) else level
    mixed = _is_mixed(element)
    run = [element.text or ""]
    for child in element:
        tag = tag_of(child)
        if mixed and not _has_parts(child):
            run += [_string(child), child.tail or ""]
            continue
        outline.block(one_line("".join(run)))
        run = [child.tail or ""]
        if _is_brief(child, tag):
            outline.unused[f"<{tag}> beside <{FULL[tag]}>"] += 1
        else:
            _part(child, tag, outline, level if tag in HEADINGS else below)
    outline.block(one_line("".join(run)))


def _has_parts(element: Element) -> bool:
    """Whether an element within text is a paragraph or the like, or has such parts; a title there is part of a sentence."""
    return any(tag_of(inner) in PARTS for inner in element.iter())


def _is_brief(element: Element, tag: str) -> bool:
    """Whether an element of a feed is the brief form of what follows in full."""
    parent = element.getparent()
    if tag not in FULL or parent is None or tag_of(parent) not in {"item", "entry"}:
        return False
    return any(tag_of(child) == FULL[tag] and all_text(child).strip() for child in parent)


def _part(element: Element, tag: str, outline: Outline, level: int) -> None:
    outline.unused["attribute with text"] += sum(
        1 for name, value in element.items() if _is_prose(str(name), str(value))
    )
    if tag in ABOUT:
        outline.unused[f"<{tag}>"] += 1
    elif tag in HEADINGS:
        outline.heading(_text(element), level)
    elif tag == "table":
        outline.extend(block_of(element))
    elif tag in CODE:
        outline.block(code(all_text(element)))
    elif tag in LISTS:
        _list(element, outline, level)
    elif len(element) and (not _is_mixed(element) or any(map(_has_parts, element))):
        _walk(element, outline, level)
    else:
        _leaf(element, tag, outline)


def _list(element: Element, outline: Outline, level: int) -> None:
    """Add a list; one with more than items in it is read part by part."""
    if _is_mixed(element) or not all(tag_of(child) in ITEMS for child in element):
        _walk(element, outline, level)
    else:
        for item in element:
            for label in list(item.iterfind("{*}label")):
                item.set(LABEL, _text(label) or BULLET)
                replace_with_text(label)
        items = zip(labels_of(element), map(_text, element), strict=True)
        outline.block("\n".join(f"{label} {text}" for label, text in items if text))


def _leaf(element: Element, tag: str, outline: Outline) -> None:
    """Add an element without parts: a paragraph, HTML in it, or a field of a record, which is counted."""
    if HTML.search(all_text(element)):
        outline.extend(page_outline(parse(f"<div>{all_text(element)}"), whole=False))
        return
    text = _text(element)
    if tag in PARAGRAPHS or (" " in text and LETTER.search(text) and not DATE.fullmatch(tag)):
        outline.block(text)
    elif text:  # numbers, dates and identifiers are not running text
        outline.unused[f"<{tag}>"] += 1


def _is_prose(name: str, value: str) -> bool:
    """Whether an attribute holds several words."""
    return value.count(" ") > 1 and LETTER.search(value) is not None and name.rpartition("}")[2].lower() not in NO_PROSE


def _is_mixed(element: Element) -> bool:
    """Whether there is text between the children of an element, which then are parts of a sentence."""
    return bool((element.text or "").strip()) or any((child.tail or "").strip() for child in element)


def _text(element: Element) -> str:
    return one_line(_inside(element))


def _inside(element: Element) -> str:
    """The text in an element; a blank parts children that are no parts of a sentence."""
    pieces = [element.text or ""]
    for child in element:
        pieces += [_string(child), child.tail or ""]
    return ("" if _is_mixed(element) else " ").join(pieces)


def _string(element: Element) -> str:
    """The text of an element within a sentence, with exponents and formulas in plain characters."""
    tag = tag_of(element)
    if tag == "math":
        return write_formula(element)
    if tag in {"lb", "br"}:
        return "\n"
    text = _inside(element)
    return raise_or_lower(text, raised=tag in RAISED) if tag in RAISED | LOWERED else text
