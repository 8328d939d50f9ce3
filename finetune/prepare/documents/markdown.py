"""Reads Markdown: removes front matter, comments and links, separates headings from text, and leaves code unchanged.

Blocks are found by markdown-it-py (MIT), which follows CommonMark; regular expressions alone take a comment in a shell
script for a heading. Only its block parser runs: text stays as written, and inline parsing has quadratic cases.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from markdown_it import MarkdownIt
from markdown_it.token import Token

from finetune.errors import Unusable
from finetune.prepare.documents.html import parse, prune
from finetune.prepare.documents.markup import outline_of
from finetune.prepare.documents.outline import Outline, one_line
from finetune.prepare.formats.encoding import decode
from finetune.records import Document

MAX_MARKDOWN = 10 * 2**20  # bytes: about a minute's work, and no text that people write by hand is so long
MAX_FRONT = 2**16  # characters of front matter: YAML that is longer is no front matter

FRONT_MATTER = re.compile(r"\A\s*(---|\+\+\+)[ \t]*\n(.*?)^\1[ \t]*(?:\n|\Z)", re.S | re.M)
TITLE = re.compile(r"^title\s*[:=]\s*(.+?)\s*$", re.M | re.I)
COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
IMAGE = re.compile(r"!\[([^\[\]]*)\](?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\[\]]*\])")
LINK = re.compile(r"\[([^\[\]]+)\](?:\([^()\n]*(?:\([^()\n]*\)[^()\n]*)*\)|\[[^\[\]]*\])")
AUTOLINK = re.compile(r"<((?:https?|mailto):[^<>\s]+)>")
REFERENCE = re.compile(r"^ {0,3}\[[^\[\]\n]+\]:[ \t]+\S.*$\n?", re.M)
FOOTNOTE = re.compile(r"\[\^[^\[\]\s]+\](?!:)")
TAG = re.compile(r"</?[a-zA-Z][^<>\n]{0,500}>")
BULLET = re.compile(r"^(\s*)[*+](?=\s)", re.M)
EMPHASIS = re.compile(r"(\*\*|__)(?=\S)([^*_\n]+?)(?<=\S)\1")
CLOSING = re.compile(r"\s+#+\s*$")


def read(data: bytes, shown: str) -> Document:
    """The headings and blocks of a text.

    Raises:
        Unusable: it has no text.
        InputError: it is binary.
    """
    if len(data) > MAX_MARKDOWN:
        raise Unusable("too_large", f"the file has more than {MAX_MARKDOWN // 2**20} MiB of Markdown. Split it")
    text = decode(data, shown).replace("\r\n", "\n").replace("\r", "\n")
    title, text = _front_matter(text)
    if not text.strip():
        raise Unusable("no_text", "the file is empty or blank. Skip it with --on-error skip")
    parser = MarkdownIt("commonmark").enable("table")
    parser.core.ruler.enableOnly(["normalize", "block"])
    lines = text.split("\n")
    outline = Outline()
    for token, following in _top_blocks(parser.parse(text)):
        _add(token, following, lines, outline)
    return outline.document(title)


def _front_matter(text: str) -> tuple[str | None, str]:
    """The title in the front matter (YAML or TOML), and the text after it."""
    match = FRONT_MATTER.match(text)
    if match is None or len(match[2]) > MAX_FRONT or not re.search(r"^[\w-]+\s*[:=]", match[2], re.M):
        return None, text
    found = TITLE.search(match[2])
    return (found[1].strip("\"'") or None) if found else None, text[match.end() :]


def _top_blocks(tokens: Sequence[Token]) -> Iterator[tuple[Token, Token | None]]:
    """Tokens that open a top-level block, each with the token after it."""
    for position, token in enumerate(tokens):
        if token.level == 0 and token.map and token.nesting >= 0:
            yield token, tokens[position + 1] if position + 1 < len(tokens) else None


def _add(token: Token, following: Token | None, lines: Sequence[str], outline: Outline) -> None:
    assert token.map is not None
    source = "\n".join(lines[token.map[0] : token.map[1]])
    if token.type == "heading_open":
        text = following.content if following is not None else ""
        outline.heading(_plain(CLOSING.sub("", text)).strip("*_ "), int(token.tag[1:]))
    elif token.type in {"fence", "code_block"}:
        outline.block(source)
    elif token.type == "html_block":
        _add_html(source, outline)
    elif token.type != "hr":
        outline.block(_plain(source))


def _plain(text: str) -> str:
    """A block's source with links as their text, and lists marked by "-"."""
    text = REFERENCE.sub("", COMMENT.sub("", text))
    text = FOOTNOTE.sub("", LINK.sub(r"\1", IMAGE.sub(r"\1", text)))
    text = TAG.sub(" ", AUTOLINK.sub(r"\1", text)) if "<" in text else text
    text = EMPHASIS.sub(r"\2", text) if "**" in text or "__" in text else text
    return "\n".join(line.rstrip() for line in BULLET.sub(r"\1-", text).split("\n"))


def _add_html(source: str, outline: Outline) -> None:
    """HTML inside Markdown: its text, as on a page."""
    source = COMMENT.sub("", source)
    if not one_line(TAG.sub("", source)):
        return
    root = parse(source)
    prune(root)
    outline.extend(outline_of(root))
