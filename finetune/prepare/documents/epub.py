"""EPUB books: the chapters in the order of the spine, each read as a page without boilerplate.

With the standard library and lxml: an EPUB is a zip archive of XHTML, and the known reader, EbookLib, is AGPL.
"""

from __future__ import annotations

import posixpath
from collections import Counter
from collections.abc import Iterator
from urllib.parse import unquote

from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents.elements import tag_of
from finetune.prepare.documents.html import decode_markup, parse
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.documents.outline import Outline
from finetune.prepare.documents.prune import prune
from finetune.prepare.formats import zip_package
from finetune.prepare.formats.safe_xml import parse_xml
from finetune.records import Document

CONTAINER, ENCRYPTION = "META-INF/container.xml", "META-INF/encryption.xml"
# Algorithms of EPUB's font obfuscation, which leaves the text readable.
FONTS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
PAGES = frozenset(("application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"))
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
        for name in _chapters(book, posixpath.dirname(path), outline.unused):
            chapter = parts.part(name)
            if chapter is None:
                outline.unused[f"missing chapter {posixpath.basename(name)}"] += 1
            else:
                outline.extend(_read_chapter(chapter, shown))
    return outline.document(_title(book))


def _read_chapter(data: bytes, shown: str) -> Outline:
    """The outline of a chapter, empty if the chapter has no text."""
    try:
        root = parse(decode_markup(data, shown))
    except Unusable as problem:
        if problem.reason == "no_text":
            return Outline()
        raise
    left_out = prune(root)
    outline = outline_of(root)
    outline.unused.update(left_out)
    return outline


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


def _chapters(book: Element, folder: str, unused: Counter[str]) -> Iterator[str]:
    """The names of the pages in reading order; counts what else the book has."""
    items = {item.get("id", ""): item for item in book.iter() if tag_of(item) == "item"}
    spine = [ref.get("idref", "") for ref in book.iter() if tag_of(ref) == "itemref"]
    if len(spine) > MAX_CHAPTERS:
        raise Unusable("too_large", f"the book has more than {MAX_CHAPTERS:,} chapters. Split it")
    read = {name: _part_name(items[name], folder) for name in spine if name in items and _kind(items[name]) == "page"}
    unused.update(name for name in map(_kind, items.values()) if name not in {"page", ""})
    others = {_part_name(item, folder) for item in items.values() if _kind(item) == "page"} - set(read.values())
    unused["page outside the reading order"] += len(others)
    unused["missing chapter"] += sum(1 for name in spine if name not in items)
    return iter(dict.fromkeys(read.values()))


def _kind(item: Element) -> str:
    """What an item of the manifest is; "" for styles, fonts and the like."""
    media = item.get("media-type", "")
    if media in PAGES:
        return "table of contents" if "nav" in item.get("properties", "").split() else "page"
    return {"image": "picture", "audio": "sound", "video": "film"}.get(media.partition("/")[0], "")


def _part_name(item: Element, folder: str) -> str:
    return posixpath.normpath(posixpath.join(folder, unquote(item.get("href", "").partition("#")[0])))


def _title(book: Element) -> str | None:
    return next((item.text for item in book.iter() if tag_of(item) == "title" and item.text), None)


def _xml(data: bytes) -> Element:
    zip_package.refuse_entities(data)
    root = parse_xml(data)
    if root is None:
        raise zip_package.damage_error("epub")
    return root
