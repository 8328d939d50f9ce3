"""Turns a tree of HTML elements into headings and blocks of Markdown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from textwrap import indent

from lxml.etree import _Element as Element

from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.elements import all_text, line_of, tag_of
from finetune.prepare.documents.list_numbers import BULLET, labels_of
from finetune.prepare.documents.markup_tables import CAPTIONS, MAX_COLUMNS, cells_of, grid_of, has_stray_text
from finetune.prepare.documents.outline import Outline, code, in_lines, one_line, table

HEADINGS = {f"h{level}": level for level in range(1, 7)}
LISTS = frozenset(("ul", "ol", "menu", "dir"))
CONTAINERS = frozenset(
    """address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer
    form header hgroup html li main nav p section summary tbody td tfoot th thead tr""".split()
)
BLOCKS = CONTAINERS | LISTS | HEADINGS.keys() | {"table", "pre", "hr"}
SILENT = frozenset(
    """head script style noscript template iframe object svg math canvas audio video button select textarea input map
    datalist""".split()
)
INLINES = frozenset(
    """a abbr acronym b base basefont bdi bdo big br cite code data del dfn em embed font frame frameset i img ins kbd label
    legend link mark meta meter nobr noframes optgroup option output picture progress q rp rt ruby s samp slot small
    source span strike strong sub sup time title track tt u var wbr body html col colgroup""".split()
)
RAISED_OR_LOWERED = frozenset(("sup", "sub"))
LONGEST_EXPONENT = 40  # characters: longer ones are small print
BOLD_HEADING_WORDS = 15  # a whole paragraph in bold type, if it is as short as that, stands for a heading
LINED = frozenset(("pre", "table"))  # what keeps its lines, and so needs blocks of its own


def outline_of(root: Element, unused: Counter[str] | None = None) -> Outline:
    """The headings and blocks below an element, in order, for HTML and XHTML; `unused` is what is left out of it."""
    outline = Outline(unused)
    _walk(root, outline)
    return outline


def is_known_tag(name: str) -> bool:
    """Whether HTML has an element of that name."""
    return name.lower() in INLINES | BLOCKS | SILENT


def block_of(element: Element) -> Outline:
    """The blocks of a single element, such as a table."""
    outline = Outline()
    _block(element, tag_of(element), outline)
    return outline


def inline_text(element: Element) -> str:
    """The text below an element, with white space as in a browser and <br> as a line break."""
    return in_lines("".join(_strings(element)))


def _strings(element: Element, without: Collection[str] = ()) -> Iterator[str]:
    """Pieces of text, `without` some elements; "\\v" marks an intended line break."""
    yield (element.text or "").replace("\v", " ")
    for child in element:
        yield from _inline(child, without)


def _inline(child: Element, without: Collection[str] = ()) -> Iterator[str]:
    tag = tag_of(child)
    if tag in without:
        pass
    elif tag == "br":
        yield "\v"
    elif tag == "ol":
        for item, label in zip(child, labels_of(child), strict=True):
            yield from _inline(item) if label == BULLET else ("\v", label, " ", *_strings(item), "\v", item.tail or "")
    elif tag in BLOCKS:
        yield from ("\v", *_strings(child, without), "\v")
    elif tag in RAISED_OR_LOWERED:
        text = "".join(_strings(child, without))
        is_exponent = len(text.strip()) <= LONGEST_EXPONENT
        yield raise_or_lower(text, raised=tag == "sup") if is_exponent else text
    elif tag and tag not in SILENT:
        yield from _strings(child, without)
    yield (child.tail or "").replace("\v", " ")


def _heading(element: Element, level: int, outline: Outline) -> None:
    """Add a heading; an unclosed one ends at the first block inside it."""
    before = [element.text or ""]
    for position, child in enumerate(element):
        if tag_of(child) in BLOCKS and "".join(before).strip():
            outline.heading("".join(before), level)
            _walk_children(list(element)[position:], [], outline)
            return
        before.extend(_inline(child))
    outline.heading("".join(before), level)


def _walk(element: Element, outline: Outline) -> None:
    """Add the contents of an element: runs of text between blocks become paragraphs."""
    _walk_children(element, [element.text or ""], outline)


def _walk_children(children: Iterable[Element], run: list[str], outline: Outline) -> None:
    for child in children:
        tag = tag_of(child)
        if tag in SILENT:
            run.append(child.tail or "")
        elif tag in BLOCKS or _holds(child, BLOCKS):
            _flush(run, outline)
            _block(child, tag, outline)
            run = [child.tail or ""]
        else:
            run.extend(_inline(child))
    _flush(run, outline)


def _flush(run: list[str], outline: Outline) -> None:
    outline.block(in_lines("".join(run)))


def _holds(element: Element, tags: Collection[str]) -> bool:
    return any(tag_of(inner) in tags for inner in element.iterdescendants())


def _block(element: Element, tag: str, outline: Outline) -> None:
    if tag in HEADINGS:
        _heading(element, HEADINGS[tag], outline)
    elif tag in LISTS and _holds(element, LINED):
        _loose_items(element, outline)
    elif tag in LISTS:
        outline.block("\n".join(_items(element, "")))
    elif tag == "dl":
        _definitions(element, outline)
    elif tag == "table":
        _table(element, outline)
    elif tag == "pre":
        outline.block(code(_lines(element)))
    elif tag == "p" and _is_bold(element):
        outline.heading(inline_text(element), max(outline.level, 2))
    else:
        _walk(element, outline)


def _lines(element: Element) -> str:
    """The text below <pre>, unchanged but for <br>."""
    inside = ("\n" if tag_of(child) == "br" else _lines(child) for child in element if tag_of(child))
    tails = (child.tail or "" for child in element if tag_of(child))
    return (element.text or "") + "".join(part for pair in zip(inside, tails, strict=True) for part in pair)


def _is_bold(paragraph: Element) -> bool:
    bold = [child for child in paragraph if tag_of(child) in {"b", "strong"}]
    text = line_of(paragraph)
    inside = one_line(" ".join(all_text(child) for child in bold))
    return bool(text) and text == inside and len(text.split()) <= BOLD_HEADING_WORDS and text[-1] not in ".,;!"


# --- lists ------------------------------------------------------------------------------------------------------------


def _loose_items(element: Element, outline: Outline) -> None:
    """Add a list with code or tables in it: the blocks of each item are indented below its bullet or number."""
    for child, label in zip(element, labels_of(element), strict=True):
        item = Outline()
        _walk(child, item)
        item.block(child.tail or "")
        margin = " " * len(f"{label} ")
        outline.block(indent(item.text(), margin).replace(margin, f"{label} ", 1))


def _items(element: Element, margin: str) -> Iterator[str]:
    if (element.text or "").strip():
        yield f"{margin}- {one_line(element.text or '')}"
    for child, label in zip(element, labels_of(element), strict=True):
        tag, below = tag_of(child), margin + " " * len(f"{label} ")
        if tag in LISTS:
            yield from _items(child, below)
        elif tag and tag not in SILENT:
            text = one_line("".join(_strings(child, without=LISTS)))
            if text:
                yield f"{margin}{label} {text}"
            for inner in _inner_lists(child):
                yield from _items(inner, below)
        if (child.tail or "").strip():
            yield f"{margin}- {one_line(child.tail or '')}"


def _inner_lists(item: Element) -> Iterator[Element]:
    for child in item:
        if tag_of(child) in LISTS:
            yield child
        elif tag_of(child) not in SILENT:
            yield from _inner_lists(child)


def _definitions(element: Element, outline: Outline) -> None:
    """Add a definition list: questions become headings, terms are written as in Markdown Extra."""
    level = min(outline.level + 1, 6)
    term = ""
    outline.block(one_line(element.text or ""))
    for part in _terms_and_meanings(element):
        tag = tag_of(part)
        if tag == "dt":
            outline.block(term)
            term = one_line(inline_text(part))
            if term.endswith("?"):
                outline.heading(term, max(level, 2))
                term = ""
        elif term and not _holds(part, LINED):
            outline.block(f"{term}\n: {one_line(inline_text(part))}")
            term = ""
        else:
            outline.block(term)
            term = ""
            _walk(part, outline)
        term = f"{term} {one_line(part.tail or '')}".strip()
    outline.block(term)


def _terms_and_meanings(element: Element) -> Iterator[Element]:
    for child in element:
        if tag_of(child) == "div":  # HTML allows it around pairs
            yield from _terms_and_meanings(child)
        elif tag_of(child):
            yield child


def _table(element: Element, outline: Outline) -> None:
    """Add a table; one for layout, not for data, is read as running text."""
    rows = cells_of(element)
    if max(map(len, rows), default=0) <= 1 or _holds(element, LINED) or has_stray_text(element):
        _walk(element, outline)
        return
    grid = grid_of(rows, inline_text)
    if max(map(len, grid)) > MAX_COLUMNS:
        _walk(element, outline)
        return
    for caption in element:
        if tag_of(caption) in CAPTIONS:
            outline.block(inline_text(caption))
    filled = [row for row in grid if any(row)]
    if filled:
        outline.block(table(filled))
