"""EPUB books: the chapters in the order of the spine, each read as a page without boilerplate.

With the standard library and lxml: an EPUB is a zip archive of XHTML, and the known reader, EbookLib, is AGPL.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents import zip_package
from finetune.prepare.documents.html import decode_markup, parse
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.documents.markup_tables import tag_of
from finetune.prepare.documents.outline import Outline
from finetune.prepare.documents.prune import prune
from finetune.prepare.documents.safe_xml import parse_xml
from finetune.records import Document

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
# Algorithms of EPUB's font obfuscation, which leaves the text readable.
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
PAGES = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml"))
MAX_CHAPTERS = 5000


def read(data: bytes, shown: str) -> Document:
    """The chapters of a book.

    Raises:
        Unusable: it is damaged or protected, or has no text.
    """
    with zip_package.open_package(data, "epub") as parts:
        _check_protection(parts)
        path, book = _package_document(parts)
        outline = Outline()
        for name in _chapters(book, posixpath.dirname(path)):
            chapter = parts.part(name)
            if chapter is None:
                raise zip_package.damage_error("epub")
            if chapter.strip():
                root = parse(decode_markup(chapter, shown))
                outline.unused.update(prune(root))
                outline.extend(outline_of(root))
    return outline.document(_title(book))


def _check_protection(parts: zip_package.ZipPackage) -> None:
    data = parts.part(ENCRYPTION)
    if data is None:
        return
    methods = [element.get("Algorithm", "") for element in _xml(data).iter() if tag_of(element) == "encryptionmethod"]
    if any(method not in FONTS for method in methods):
        raise Unusable("encrypted_epub", "the book is copy-protected. Use one without protection")


def _package_document(parts: zip_package.ZipPackage) -> tuple[str, Element]:
    container = parts.part(CONTAINER)
    if container is None:
        raise zip_package.damage_error("epub")
    path = next((item.get("full-path", "") for item in _xml(container).iter() if tag_of(item) == "rootfile"), "")
    book = parts.part(path)
    if book is None:
        raise zip_package.damage_error("epub")
    return path, _xml(book)


def _chapters(book: Element, folder: str) -> Iterator[str]:
    items = {item.get("id"): item for item in book.iter() if tag_of(item) == "item"}
    spine = [items.get(ref.get("idref")) for ref in book.iter() if tag_of(ref) == "itemref"]
    if len(spine) > MAX_CHAPTERS:
        raise Unusable("too_large", f"the book has more than {MAX_CHAPTERS:,} chapters. Split it")
    seen: set[str] = set()
    for item in spine:
        if item is None or item.get("media-type") not in PAGES or "nav" in item.get("properties", "").split():
            continue
        name = posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "").partition("#")[0])))
        if name not in seen:
            seen.add(name)
            yield name


def _title(book: Element) -> str | None:
    return next((item.text for item in book.iter() if tag_of(item) == "title" and item.text), None)


def _xml(data: bytes) -> Element:
    zip_package.refuse_doctype(data)
    root = parse_xml(data)
    if root is None:
        raise zip_package.damage_error("epub")
    return root
