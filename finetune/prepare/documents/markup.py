"""Turns a tree of HTML elements into headings and blocks of Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from lxml.etree import _Element as Element

from finetune.prepare.documents.outline import Outline, code, one_line, table

HEADINGS = {f"h{level}": level for level in range(1, 7)}
LISTS = frozenset(("ul", "ol", "menu", "dir"))
CONTAINERS = frozenset(
    """address article aside blockquote body caption center dd details dialog div dl dt fieldset figcaption figure footer
    form header hgroup html li main nav p section summary tbody td tfoot th thead tr""".split()  # noqa: SIM905
)
BLOCKS = CONTAINERS | LISTS | HEADINGS.keys() | {"table", "pre", "hr"}
SILENT = frozenset(
    """head script style noscript template iframe object svg math canvas audio video button select textarea input map
    datalist""".split()  # noqa: SIM905
)
BOLD_HEADING_WORDS = 15  # a whole paragraph in bold type, if it is as short as that, stands for a heading
MAX_COLUMNS = 200  # of a table: more is a drawing made of cells


def outline_of(root: Element) -> Outline:
    """The headings and blocks below an element, in order, for HTML and XHTML."""
    outline = Outline()
    _walk(root, outline)
    return outline


def block_of(element: Element) -> Outline:
    """The blocks of a single element, such as a table."""
    outline = Outline()
    _block(element, tag_of(element), outline)
    return outline


def tag_of(element: Element) -> str:
    """The name of an element in lower case, without its namespace; "" for comments and processing instructions."""
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def all_text(element: Element) -> str:
    """The text below an element, unchanged."""
    return "".join(str(piece) for piece in element.itertext())


def inline_text(element: Element) -> str:
    """The text below an element, with white space as in a browser and <br> as a line break."""
    lines = "".join(_strings(element)).split("\v")
    return "\n".join(line for line in map(one_line, lines) if line)


def _strings(element: Element) -> Iterator[str]:
    """Pieces of text; "\\v" marks an intended line break."""
    yield (element.text or "").replace("\v", " ")
    for child in element:
        yield from _inline(child)


def _inline(child: Element) -> Iterator[str]:
    tag = tag_of(child)
    if tag == "br":
        yield "\v"
    elif tag in BLOCKS:
        yield "\v"
        yield from _strings(child)
        yield "\v"
    elif tag and tag not in SILENT:
        yield from _strings(child)
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
        elif tag in BLOCKS or _holds_block(child):
            _flush(run, outline)
            _block(child, tag, outline)
            run = [child.tail or ""]
        else:
            run.extend(_inline(child))
    _flush(run, outline)


def _flush(run: list[str], outline: Outline) -> None:
    lines = "".join(run).split("\v")
    outline.block("\n".join(line for line in map(one_line, lines) if line))


def _holds_block(element: Element) -> bool:
    return any(tag_of(inner) in BLOCKS for inner in element.iterdescendants())


def _block(element: Element, tag: str, outline: Outline) -> None:
    if tag in HEADINGS:
        _heading(element, HEADINGS[tag], outline)
    elif tag in LISTS:
        outline.block("\n".join(_items(element, "")))
    elif tag == "dl":
        _definitions(element, outline)
    elif tag == "table":
        _table(element, outline)
    elif tag == "pre":
        outline.block(code(all_text(element)))
    elif tag == "p" and _is_bold(element):
        outline.heading(inline_text(element), max(outline.level, 2))
    else:
        _walk(element, outline)


def _is_bold(paragraph: Element) -> bool:
    bold = [child for child in paragraph if tag_of(child) in {"b", "strong"}]
    text = one_line(all_text(paragraph))
    inside = one_line(" ".join(all_text(child) for child in bold))
    return bool(text) and text == inside and len(text.split()) <= BOLD_HEADING_WORDS and text[-1] not in ".,;!"


# --- lists ------------------------------------------------------------------------------------------------------------


def _items(element: Element, indent: str) -> Iterator[str]:
    for child in element:
        tag = tag_of(child)
        if tag in LISTS:
            yield from _items(child, indent + "  ")
        elif tag and tag not in SILENT:
            text = "".join(_own_strings(child)).replace("\v", " ")
            if text.strip():
                yield f"{indent}- {one_line(text)}"
            for inner in _inner_lists(child):
                yield from _items(inner, indent + "  ")
        if (child.tail or "").strip():
            yield f"{indent}- {one_line(child.tail or '')}"


def _own_strings(item: Element) -> Iterator[str]:
    """The text of a list item without that of nested lists."""
    yield item.text or ""
    for child in item:
        tag = tag_of(child)
        if tag not in LISTS and tag and tag not in SILENT:
            yield " " if tag in BLOCKS else ""
            yield from _own_strings(child)
            yield " " if tag in BLOCKS or tag == "br" else ""
        yield child.tail or ""


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
    for part in _terms_and_meanings(element):
        tag = tag_of(part)
        if tag == "dt":
            outline.block(term)
            term = one_line(inline_text(part))
            if term.endswith("?"):
                outline.heading(term, max(level, 2))
                term = ""
        elif term:
            outline.block(f"{term}\n: {one_line(inline_text(part))}")
            term = ""
        else:
            _walk(part, outline)
    outline.block(term)


def _terms_and_meanings(element: Element) -> Iterator[Element]:
    for child in element:
        if tag_of(child) == "div":  # HTML allows it around pairs
            yield from _terms_and_meanings(child)
        elif tag_of(child) in {"dt", "dd"}:
            yield child


# --- tables -----------------------------------------------------------------------------------------------------------


def _table(element: Element, outline: Outline) -> None:
    for caption in element.iterchildren("{*}caption"):
        outline.block(inline_text(caption))
    rows = [list(_cells(row)) for row in _rows(element)]
    width = max(map(len, rows), default=0)
    if width <= 1 or width > MAX_COLUMNS or any(tag_of(inner) == "table" for inner in element.iterdescendants()):
        for row in rows:
            for cell in row:
                _walk(cell, outline)  # a table for layout, not for data
        return
    filled = [texts for texts in ([inline_text(cell) for cell in row] for row in rows) if any(texts)]
    if filled:
        outline.block(table(filled))


def _rows(element: Element) -> Iterator[Element]:
    for child in element:
        if tag_of(child) == "tr":
            yield child
        elif tag_of(child) in {"thead", "tbody", "tfoot"}:
            yield from _rows(child)


def _cells(row: Element) -> Iterator[Element]:
    return (cell for cell in row if tag_of(cell) in {"td", "th"})
