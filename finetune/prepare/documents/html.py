"""HTML pages: what the page is about, without navigation, banners, advertisements and hidden text.

Which blocks those are, trafilatura says (Apache-2.0); headings, lists, tables and definitions come from the page
itself, since trafilatura's own output loses headings on old pages and turns definitions into bullets.

Measured on six pages by benchmarks/parts/document_readers.py (texts missing, boilerplate kept, words lost of 3,700): this
reader 0, 0, 0; trafilatura's own output 0, 0, 32, most of them headings; jusText 1, 0, 71; readability-lxml 0, 1 (a
cookie banner), 0; resiliparse 0, 0, 309. A fragment without <body> was cut out by someone already, and is taken whole.
"""

from __future__ import annotations

import logging
import re
from copy import deepcopy

from lxml import etree
from lxml import html as lxml_html
from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents.markup import HEADINGS, SILENT, all_text, outline_of
from finetune.prepare.documents.markup_tables import tag_of
from finetune.prepare.documents.outline import Outline, one_line
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_HTML = 10 * 2**20  # bytes of markup: about a minute's work, and no page that people read is so long

DECLARED = re.compile(
    rb"""<(?:meta\b[^>]{0,200}?\bcharset|\?xml\b[^>]{0,200}?\bencoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.I
)
DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
WHOLE_PAGE = re.compile(r"<(?:html|body|head|frameset)\b|<!doctype", re.I)
BOILERPLATE_TAGS = frozenset(("nav", "aside", "footer", "dialog"))
BOILERPLATE_ROLES = frozenset(
    ("navigation", "banner", "contentinfo", "complementary", "dialog", "alertdialog", "search", "menu", "menubar")
)
BOILERPLATE_NAMES = re.compile(
    r"cookie|consent|gdpr|newsletter|breadcrumb|skip-?(?:link|nav|to)|site-?nav|share-?(?:bar|buttons?|links)"
    r"|social-?(?:share|links|media)|subscribe|advert(?:isement)?\b|popup|paywall",
    re.I,
)
HIDDEN = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.I)
NO_LETTERS = re.compile(r"[\W_]+")
KEPT_SHARE = 0.5  # of a list or table: trafilatura may leave out single lines
MAX_SEARCHED = 2**20  # characters: on longer pages only whole lines are looked up, since searching each takes too long
SITE_NAME = re.compile(r"\s+[|·»]\s+.*\Z|\s+::\s+.*\Z", re.S)


def read(data: bytes, shown: str) -> Document:
    """A page's main text.

    Raises:
        Unusable: it has no text, or is too large.
        InputError: it is binary.
    """
    text = decode_markup(data, shown)
    root = parse(text)
    title = page_title(root)
    prune(root)
    outline = outline_of(root)
    if WHOLE_PAGE.search(text, 0, 5000):
        outline = _main_part(root, outline)
    return outline.document(title)


def decode_markup(data: bytes, shown: str) -> str:
    """The text of a page or XML file, in its declared encoding if that is correct."""
    if len(data) > MAX_HTML:
        raise Unusable("too_large", f"the page has more than {MAX_HTML // 2**20} MiB of markup. Split it")
    declared = DECLARED.search(data[:4096])
    if declared and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")) and b"\0" not in data[:4096]:
        name = declared[1].decode("ascii").lower()
        # Browsers read Latin-1 as Windows-1252 (WHATWG Encoding Standard), so pages are written that way.
        name = "cp1252" if name in {"iso-8859-1", "latin1", "latin-1", "us-ascii", "ascii"} else name
        try:
            return data.decode(name)
        except (LookupError, UnicodeDecodeError):
            pass  # unknown or wrong
    return decode(data, shown)


def parse(text: str) -> Element:
    """The tree of a page or fragment; open tags are closed as in browsers.

    Raises:
        Unusable: it contains no element.
    """
    text = DECLARATION.sub("", text).replace("\0", "")
    parser = lxml_html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True)
    try:
        return lxml_html.document_fromstring(text, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):
        raise Unusable("no_text", "the page has no text. Skip it with --on-error skip") from None


def page_title(root: Element) -> str | None:
    """The content of <title>, without the name of the site at its end."""
    element = next((element for element in root.iter() if tag_of(element) == "title"), None)
    if element is None:
        return None
    full = one_line(all_text(element))
    return SITE_NAME.sub("", full) or full or None


def prune(root: Element) -> None:
    """Remove everything that readers do not see as text of the page: menus, banners, scripts, hidden parts."""
    for element in list(root.iter()):
        if element is not root and element.getparent() is not None and _is_boilerplate(element):
            _drop(element)


def _is_boilerplate(element: Element) -> bool:
    tag = tag_of(element)
    if tag in {"html", "body", "main", "article", "head", "title"}:
        return False
    if not tag or tag in SILENT or tag in BOILERPLATE_TAGS:
        return True
    names = f"{element.get('id', '')} {element.get('class', '')}"
    return (
        element.get("role", "").lower() in BOILERPLATE_ROLES
        or "hidden" in element.attrib
        or element.get("aria-hidden", "").lower() == "true"
        or HIDDEN.search(element.get("style", "")) is not None
        or (len(names) > 1 and tag not in HEADINGS and BOILERPLATE_NAMES.search(names) is not None)
    )


def _drop(element: Element) -> None:
    """Remove an element but keep the text that follows it."""
    parent, before, tail = element.getparent(), element.getprevious(), element.tail or ""
    assert parent is not None
    if before is not None:
        before.tail = (before.tail or "") + tail
    else:
        parent.text = (parent.text or "") + tail
    parent.remove(element)


def _main_part(root: Element, outline: Outline) -> Outline:
    """The outline without boilerplate blocks, or all of it if nothing else remains."""
    import trafilatura  # takes a fifth of a second, which other formats need not wait for

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports pages without text; so do we
    found = trafilatura.extract(
        deepcopy(root),
        output_format="txt",
        include_comments=False,
        include_tables=True,
        favor_recall=True,  # a lost paragraph is gone for good; boilerplate that stays meets later filters
    )
    main = _letters(found or "")
    if not main:
        return outline
    lines = frozenset(_letters(line) for line in (found or "").split("\n"))
    return outline.only(lambda block: _share(block, main, lines) >= KEPT_SHARE, "block outside the main text")


def _share(block: str, main: str, lines: frozenset[str]) -> float:
    """The share of a block that is in the main part, measured by the letters of its lines."""
    found = total = 0
    for line in map(_letters, block.split("\n")):
        total += len(line)
        if line in lines or (len(main) <= MAX_SEARCHED and line in main):
            found += len(line)
    return found / max(total, 1)


def _letters(text: str) -> str:
    return NO_LETTERS.sub("", text)
