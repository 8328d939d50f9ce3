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
from collections.abc import Iterator
from copy import deepcopy
from functools import cache

from lxml import etree
from lxml import html as lxml_html
from lxml.etree import _Element as Element

from finetune.errors import Unusable
from finetune.prepare.documents.elements import line_of, tag_of
from finetune.prepare.documents.markup import inline_text, outline_of
from finetune.prepare.documents.outline import Outline
from finetune.prepare.documents.prune import CALLOUTS, SIDE_THINGS, WAS_HIDDEN, is_content, names_of, prune
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_HTML = 10 * 2**20  # bytes of markup: about a minute's work, and no page that people read is so long

DECLARED = re.compile(
    rb"""<(?:meta\b[^>]{0,200}?\bcharset|\?xml\b[^>]{0,200}?\bencoding)\s*=\s*["']?\s*([\w.:-]{2,40})""", re.I
)
DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
WHOLE_PAGE = re.compile(r"<(?:html|body|head|frameset)\b|<!doctype", re.I)
READ_AS = dict.fromkeys(("aside", "footer", "form", "fieldset", "figure"), "div")
READ_AS |= dict.fromkeys(("label", "legend", "time", "output"), "span")
# Names by which trafilatura may tell what an element is.
KNOWN_NAMES = SIDE_THINGS | frozenset(
    """content main article entry post body text story nav navbar navigation menu footer breadcrumb breadcrumbs banner
    byline tags cookie comment""".split()
)
NO_LETTERS = re.compile(r"[\W_]+")
LABEL = re.compile(r"\s*-?(?:\d{1,9}|[a-z]{1,8}|[A-Z]{1,8})\.\s")  # of an item of a list, where trafilatura writes "-"
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
    return page_outline(root, whole=WHOLE_PAGE.search(text, 0, 5000) is not None).document(page_title(root))


def page_outline(root: Element, *, whole: bool) -> Outline:
    """The headings and blocks of a `whole` page's main part, or of all of a fragment."""
    outline = outline_of(root, prune(root, page=whole))
    return _main_part(root, outline) if whole else outline


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
    """The tree of a page or fragment; open tags are closed as in browsers."""
    text = DECLARATION.sub("", text).replace("\0", "")
    parser = lxml_html.HTMLParser(no_network=True)
    try:
        return lxml_html.document_fromstring(text, parser=parser)
    except (etree.ParserError, etree.XMLSyntaxError, ValueError):  # there is no element
        return etree.Element("html")


def page_title(root: Element) -> str | None:
    """The content of <title>, without the name of the site at its end."""
    element = next((element for element in root.iter() if tag_of(element) == "title"), None)
    if element is None:
        return None
    full = line_of(element)
    return SITE_NAME.sub("", full) or full or None


def _main_part(root: Element, outline: Outline) -> Outline:
    """The outline without boilerplate blocks, or all of it if nothing else remains."""
    import trafilatura  # takes a fifth of a second, which other formats need not wait for

    logging.getLogger("trafilatura").setLevel(logging.CRITICAL)  # it reports pages without text; so do we
    text = trafilatura.extract(
        _copy_for_trafilatura(root),
        output_format="txt",
        include_comments=False,
        include_tables=True,
        favor_recall=True,  # a lost paragraph is gone for good; boilerplate that stays meets later filters
    )
    main = _Lines(text or "")
    if not main.letters:
        return outline
    content = cache(lambda: _Lines("\n".join(_content_texts(root))))  # most pages need neither
    # Links to another part of the page are often titles of parts that a click shows.
    outer = (link for link in root.iter("{*}a") if not link.get("href", "#").startswith("#"))
    links = cache(lambda: _Lines("\n".join(map(inline_text, outer))))
    return outline.only(
        lambda block: (
            main.share(block) >= KEPT_SHARE or content().share(block) >= KEPT_SHARE > links().share(block, whole=True)
        ),
        "block outside the main text",
    )


def _copy_for_trafilatura(root: Element) -> Element:
    """A copy without the ids, classes and elements that make trafilatura remove text, other than those that should.

    It goes by parts of words: "bar", "yin" and "share" in a class, such as that of "shareholders", mark boilerplate. What
    `prune` has kept of <aside>, <form> and the like is text.
    """
    copy = deepcopy(root)
    for element in copy.iter("*"):
        element.tag = READ_AS.get(tag_of(element), element.tag)
        if names_of(element).isdisjoint(KNOWN_NAMES):
            for name in ("id", "class"):
                element.attrib.pop(name, "")
    return copy


def _content_texts(root: Element) -> Iterator[str]:
    """What is surely text: <main>, <article>, what a click shows, and its title, which is a link within the page."""
    yield from (inline_text(link) for link in root.iter("{*}a") if link.get("href", "").startswith("#"))
    elements = [root]
    while elements:
        element = elements.pop()
        if is_content(element) or WAS_HIDDEN in element.attrib or names_of(element) & CALLOUTS:
            yield from outline_of(element).text().split("\n")
        else:
            elements += element


class _Lines:
    """The lines of a text, to look up those of blocks by their letters."""

    def __init__(self, text: str) -> None:
        lines = [_letters(line) for line in text.split("\n")]
        self.letters = "".join(lines)
        self._lines = frozenset(lines)

    def share(self, block: str, *, whole: bool = False) -> float:
        """The share of a block that is in this text, or in `whole` lines of it."""
        search = not whole and len(self.letters) <= MAX_SEARCHED
        lines = [_letters(line) for line in block.split("\n")]
        known = sum(len(line) for line in lines if line in self._lines or (search and line in self.letters))
        return known / max(sum(map(len, lines)), 1)


def _letters(text: str) -> str:
    label = LABEL.match(text)
    return NO_LETTERS.sub("", text[label.end() :] if label else text)
