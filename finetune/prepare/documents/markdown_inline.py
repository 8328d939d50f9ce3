"""The running text of Markdown in plain form: without the marks of links, images, bold type and HTML, but nothing else.

Whatever is not such a mark stays as written: code, escaped signs, footnotes, `x[i][j]`, `2**10`, `__init__`, `<your name>`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterator

from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.markup import SILENT, is_known_tag
from finetune.prepare.documents.outline import CJK

COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.S)
CLOSED_COMMENT = re.compile(r"<!--(?:(?!<!--|-->).)*-->", re.S)
KEPT_AS_WRITTEN = re.compile(r"\\[!-/:-@\[-`{-~]|`+|\$\$|\$(?=[^\s$])[^$\n]*[^\s$\\]\$(?!\d)")
FENCES = re.compile(r"`+|\$\$")

TARGET = r"(?:<[^<>\n]*>|(?:[^\s()<>]|\([^\s()]*\))*)"
QUOTED = r"""(?:"[^"\n]*"|'[^'\n]*'|\([^()\n]*\))"""
LINK = re.compile(rf"(!?)\[([^\[\]]*)\]\([ \t]*({TARGET})(?:\s+{QUOTED})?[ \t]*\)")
# To a name that the text defines, or alone: `[text][name]`, `[name][]`, `[name]`.
NAMED_LINK = re.compile(r"(!?)\[([^\[\]]+)\](?:\[([^\[\]]*)\])?(?![(:])")
AUTOLINK = re.compile(r"<(?:mailto:)?((?:https?|ftp):[^<>\s]+|[^<>\s@:]+@[^<>\s@]+)>")
ADDRESS = (
    r"(?:<[^<>\n]*>|#\S*|\.{0,2}/\S*|(?:mailto|tel|urn|doi|data):\S+|[A-Za-z][\w+.-]*://\S+"
    r"|[^\s:]*\.[A-Za-z]\w{1,5}(?:[#?/:]\S*)?)(?!\S)"
)
REFERENCE = re.compile(
    rf"^ {{0,3}}(?:> ?)*\[(?!\^)([^\[\]\n]+)\]:[ \t]*{ADDRESS}(?:[ \t]*\n?[ \t]+{QUOTED})?[ \t]*$\n?", re.M
)

TAG = re.compile(
    r"""<(/?)([A-Za-z][A-Za-z0-9]*)((?:\s+[A-Za-z_:][\w.:-]*(?:\s*=\s*(?:"[^"]*"|'[^']*'|[^\s"'=<>`]+))?)*+)\s*+/?>"""
)
SCRIPT = re.compile(r"<(sup|sub)>([^<>\n]{1,40})</\1>", re.I)
UNSEEN = re.compile(rf"<({'|'.join(sorted(SILENT))})\b[^<>]*>.{{0,2000}}?</\1\s*>", re.S | re.I)
VOID = frozenset(("br", "hr", "img", "wbr", "input"))
BULLET = re.compile(r"^(\s*)[*+](?=\s)", re.M)
BOLD = re.compile(rf"(?:(?<![\w*])|(?<=[{CJK}]))\*\*(?=[^\s*])([^*\n]+)(?<=\S)\*\*(?:(?![\w*])|(?=[{CJK}]))")
UNDERLINED = re.compile(r"(?<![\w_])__(?![a-z0-9_]+__)(?=[^\s_])([^\n_]+(?:_[^\n_]+)*)(?<=\S)__(?![\w_])")
KEPT = re.compile(r"\0(\d+)\0")


class Inline:
    """Brings running text into plain form, and counts in `unused` what that leaves out."""

    def __init__(self, unused: Counter[str]) -> None:
        self._unused = unused
        self._names: set[str] = set()  # of link references

    def note_references(self, text: str) -> None:
        """Remember the names that a text gives to the addresses of links: `[name]: https://example.org`."""
        self._names |= {_key(match[1]) for match in REFERENCE.finditer(text)}

    def plain(self, source: str) -> str:
        """The source of a block in plain form, with lists marked by "-"."""
        kept: list[str] = []

        def keep(piece: str) -> str:
            kept.append(piece)
            return f"\0{len(kept) - 1}\0"

        text = "".join(keep(piece) if fixed else piece for fixed, piece in _split(source))
        text = self._drop(REFERENCE, "link address", text)
        text = LINK.sub(self._link, text) if "](" in text else text
        text = NAMED_LINK.sub(self._named_link, text) if self._names and "[" in text else text
        text = self._tags(text) if "<" in text else text
        text = UNDERLINED.sub(r"\1", BOLD.sub(r"\1", text)) if "**" in text or "__" in text else text
        text = KEPT.sub(lambda match: kept[int(match[1])], BULLET.sub(r"\1-", text))
        return "\n".join(line.rstrip() for line in text.split("\n"))

    def _drop(self, pattern: re.Pattern[str], name: str, text: str) -> str:
        text, count = pattern.subn("", text)
        self._unused[name] += count
        return text

    def _link(self, match: re.Match[str]) -> str:
        image, text, target = match.groups()
        inside_word = re.match(r"\w", match.string[match.start() - 1 : match.start()]) is not None
        if not image and (target.isdigit() or (inside_word and not re.fullmatch(ADDRESS, target))):
            return match[0]  # x[i](y), [Smith](2004)
        self._unused["image" if image else "link address"] += 1
        return text

    def _named_link(self, match: re.Match[str]) -> str:
        image, text, name = match.groups()
        if _key(name or text) not in self._names or (not name and text.isdigit()):
            return match[0]  # "[1]" reads better than "1"
        self._unused["image"] += bool(image)
        return text

    def _tags(self, text: str) -> str:
        text = self._drop(CLOSED_COMMENT, "comment", AUTOLINK.sub(r"\1", text))
        text = SCRIPT.sub(lambda match: raise_or_lower(match[2], raised=match[1].lower() == "sup"), text)
        text = self._drop(UNSEEN, "hidden element", text)
        ends = Counter((match[2].lower(), bool(match[1])) for match in TAG.finditer(text))
        return TAG.sub(lambda match: self._tag(match, ends), text)

    def _tag(self, match: re.Match[str], ends: Counter[tuple[str, bool]]) -> str:
        """Nothing for a tag of HTML: one with attributes, one of a pair, or one that stands alone, such as <br>."""
        end, name, attributes = match[1], match[2].lower(), match[3].strip()
        pair = ends[name, True] and ends[name, False]
        if not is_known_tag(name) or not (name in VOID or pair or "=" in attributes):
            return match[0]
        self._unused["image"] += name == "img"
        self._unused["form field"] += name == "input"
        self._unused["link address"] += name == "a" and not end
        self._unused["tooltip"] += "title=" in attributes
        return "\n" if name in {"br", "hr"} else ""


def _key(name: str) -> str:
    return " ".join(name.split()).casefold()


def _split(source: str) -> Iterator[tuple[bool, str]]:
    """The pieces of a text, each with whether it stays as written: code, formulas between dollar signs, escaped signs."""
    fences: dict[str, list[int]] = defaultdict(list)  # a run of backticks, or $$ -> where such ones begin
    for fence in FENCES.finditer(source):
        fences[fence[0]].append(fence.start())
    begin = position = 0
    while match := KEPT_AS_WRITTEN.search(source, position):
        position = match.end()
        if match[0] in fences:
            closers = fences[match[0]]
            after = bisect_left(closers, match.end())
            if after == len(closers):
                continue
            position = closers[after] + len(match[0])
        yield False, source[begin : match.start()]
        yield True, source[match.start() : position]
        begin = position
    yield False, source[begin:]
