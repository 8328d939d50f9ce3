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
from finetune.prepare.documents.html import decode_markup, page_outline, parse
from finetune.prepare.documents.outline import Outline
from finetune.prepare.formats.zip_package import ZipPackage, open_package
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
    with open_package(data, "epub") as parts:
        _check_protection(parts)
        path = next((file.get("full-path", "") for file in parts.root(CONTAINER).iter("{*}rootfile")), "")
        book = parts.root(path)
        outline = Outline()
        for name in _chapters(book, posixpath.dirname(path), outline.unused):
            chapter = parts.part(name)
            if chapter is None:
                outline.unused[f"missing chapter {posixpath.basename(name)}"] += 1
            else:
                outline.extend(page_outline(parse(decode_markup(chapter, shown)), whole=False))
    return outline.document(next((title.text for title in book.iter("{*}title", "{*}Title") if title.text), None))


def _check_protection(parts: ZipPackage) -> None:
    if ENCRYPTION not in parts.names:
        return
    methods = [method.get("Algorithm", "") for method in parts.root(ENCRYPTION).iter("{*}EncryptionMethod")]
    if any(method not in FONTS for method in methods):
        raise Unusable("encrypted_epub", "the book is copy-protected. Use one without protection")


def _chapters(book: Element, folder: str, unused: Counter[str]) -> Iterator[str]:
    """The names of the pages in reading order; counts what else the book has."""
    items = {item.get("id", ""): item for item in book.iter("{*}item")}
    spine = [ref.get("idref", "") for ref in book.iter("{*}itemref")]
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
