"""Reads Markdown: removes front matter, comments and the addresses of links, finds headings, and leaves code unchanged.

Blocks are found by markdown-it-py (MIT), which follows CommonMark; regular expressions alone take a comment in a shell
script for a heading. Only its block parser runs: text stays as written, and inline parsing has quadratic cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from markdown_it import MarkdownIt
from markdown_it.token import Token

from finetune.errors import Unusable
from finetune.prepare.documents.html import page_outline, parse
from finetune.prepare.documents.markdown_inline import COMMENT, Inline
from finetune.prepare.documents.markup import is_known_tag
from finetune.prepare.documents.outline import Outline
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_MARKDOWN = 10 * 2**20  # bytes: about a minute's work, and no text that people write by hand is so long
MAX_FRONT = 2**16  # characters of front matter: YAML that is longer is no front matter

FRONT_MATTER = re.compile(r"\A\s*(---|\+\+\+)[ \t]*\n(?=\S)(.*?)^\1[ \t]*(?:\n|\Z)", re.S | re.M)
KEY = re.compile(r"^[\w-]+\s*[:=]", re.M)
TITLE = re.compile(r"^title\s*[:=]\s*(.+?)\s*$", re.M | re.I)
EMPHASISED = re.compile(r"([*_])(?=\S)([^*_\n]+)(?<=\S)\1")
FIRST_TAG = re.compile(r"\s*</?([A-Za-z][\w:.-]*)")


def read(data: bytes, shown: str) -> Document:
    """The headings and blocks of a text.

    Raises:
        Unusable: it has no text.
        InputError: it is binary.
    """
    if len(data) > MAX_MARKDOWN:
        raise Unusable("too_large", f"the file has more than {MAX_MARKDOWN // 2**20} MiB of Markdown. Split it")
    text = decode(data, shown).replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd")
    outline = Outline()
    title, text = _front_matter(text, outline)
    add_markdown(text, outline)
    return outline.document(title)


def add_markdown(text: str, outline: Outline) -> None:
    """Add the headings and blocks of a text without front matter."""
    # Not the rule for link references: it takes "[^1]: Since" and "[Guest]: Yes." for one. Inline looks for addresses.
    parser = MarkdownIt("commonmark").enable("table").disable("reference")
    parser.core.ruler.enableOnly(["normalize", "block"])
    tokens = parser.parse(text)
    lines = text.split("\n")
    inline = Inline(outline.unused)
    inline.note_references(text)
    for token, inside in _top_blocks(tokens):
        _add(token, inside, lines, inline, outline)


def _front_matter(text: str, outline: Outline) -> tuple[str | None, str]:
    """The title in the front matter (YAML or TOML), and the text after it."""
    match = FRONT_MATTER.match(text)
    if match is None or len(match[2]) > MAX_FRONT or not KEY.match(match[2]):
        return None, text
    title = TITLE.search(match[2])
    outline.unused["field of the front matter"] += len(KEY.findall(match[2])) - (title is not None)
    return (title[1].strip("\"'") or None) if title else None, text[match.end() :]


def _top_blocks(tokens: Sequence[Token]) -> Iterator[tuple[Token, Sequence[Token]]]:
    """Tokens that open a top-level block, each with the tokens inside it."""
    starts = [number for number, token in enumerate(tokens) if token.level == 0 and token.map and token.nesting >= 0]
    for start, end in pairwise([*starts, len(tokens)]):
        yield tokens[start], tokens[start + 1 : end]


def _add(token: Token, inside: Sequence[Token], lines: Sequence[str], inline: Inline, outline: Outline) -> None:
    assert token.map is not None
    source = "\n".join(lines[slice(*token.map)])
    if token.type == "heading_open":
        heading = inline.plain(inside[0].content if inside else "")
        outline.heading(
            EMPHASISED.sub(r"\2", heading) if EMPHASISED.fullmatch(heading) else heading, int(token.tag[1:])
        )
    elif token.type in {"fence", "code_block"}:
        outline.block(source)
    elif token.type == "html_block" and (source.lstrip().startswith("<!--") or _is_html(source)):
        _add_html(source, outline)
    elif token.type != "hr":
        outline.block("\n".join(_parts(token.map, inside, lines, inline)))


def _parts(span: Sequence[int], inside: Sequence[Token], lines: Sequence[str], inline: Inline) -> Iterator[str]:
    """The lines of a block in plain form, except those of code in its lists and quotations."""
    begin, end = span
    for token in inside:
        if token.type in {"fence", "code_block"} and token.map and token.map[0] >= begin:
            yield from _plain_lines(lines[begin : token.map[0]], inline)
            yield from lines[slice(*token.map)]
            begin = token.map[1]
    yield from _plain_lines(lines[begin:end], inline)


def _plain_lines(lines: Sequence[str], inline: Inline) -> Iterator[str]:
    if lines:
        yield inline.plain("\n".join(lines))


def _is_html(source: str) -> bool:
    """Whether a block begins with an element of HTML; `<your name>` and the like are text."""
    tag = FIRST_TAG.match(source)
    return tag is None or is_known_tag(tag[1])


def _add_html(source: str, outline: Outline) -> None:
    """HTML inside Markdown: its text, as on a page."""
    outline.unused["comment"] += len(COMMENT.findall(source))
    source = COMMENT.sub("", source).strip()
    if source.startswith(("<!", "<?")):
        outline.unused["declaration"] += 1
    elif source:
        root = parse(f"<div>{source}")  # so that there is an element: many blocks only close one
        outline.extend(page_outline(root, whole=False))
