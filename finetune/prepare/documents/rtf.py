"""Rich Text Format (.rtf): headings, paragraphs, lists, tables and footnotes in reading order.

With regular expressions: striprtf (BSD-3-Clause) loses headings and tables and keeps hidden and deleted text, headers and
comments. The format is braces, control words and bytes (Rich Text Format Specification 1.9.1).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from finetune.errors import Unusable
from finetune.prepare.clean.markup import raise_or_lower
from finetune.prepare.documents.list_numbers import BULLET
from finetune.prepare.documents.outline import Outline, in_lines, one_line, table
from finetune.records import Document

TOKEN = re.compile(
    rb"\\([a-z]{1,32})(-?\d{1,10})? ?|\\'([0-9a-fA-F]{2})|\\([^a-z])|([{}])|[\r\n\0]+|([^\\{}\r\n\0]+)", re.S
)
STYLE = re.compile(rb"\{[^{}]*?\\s(\d{1,5})\b[^{}]*?(?:\\outlinelevel(\d)\b[^{}]*?)?[ }]([^{}\\;]*);?\}")
HEADING = re.compile(rb"\s*(?:heading|\\'dcberschrift|Titre) (\d)\s*\Z", re.I)
NUMBER = re.compile(
    r"[(\[]?\w{1,8}(?:\.\w{1,4})*[.)\]]|\d{1,4}(?:\.\d{1,4})*"
)  # before an item, else a bullet of some font
TYPED_ITEM = re.compile(r"- |\w{1,4}[.)] \S")
MAX_DEPTH = 500  # of groups: programs write about 20
BODY = 9  # the outline level of what is not a heading
SIGNS = {
    "tab": "\t", "line": "\n", "emdash": "—", "endash": "–", "lquote": "‘", "rquote": "’", "ldblquote": "“", "rdblquote": "”",
    "bullet": "•", "emspace": " ", "enspace": " ", "qmspace": " ", "~": "\u00a0", "_": "\u2011", "\\": "\\", "{": "{", "}": "}",
    "softline": " ", "zwj": "\u200d", "zwnj": "\u200c",
}  # fmt: skip
CHARSETS = {
    128: "cp932", 129: "cp949", 134: "gbk", 136: "cp950", 161: "cp1253", 162: "cp1254", 163: "cp1258", 177: "cp1255",
    178: "cp1256", 186: "cp1257", 204: "cp1251", 222: "cp874", 238: "cp1250",
}  # fmt: skip
# Groups whose text is not that of the document, and the names under which they count; "": settings of programs.
LEFT_OUT = {
    **dict.fromkeys(("header", "headerl", "headerr", "headerf"), "header"),
    **dict.fromkeys(("footer", "footerl", "footerr", "footerf"), "footer"),
    "annotation": "comment", "pict": "picture", "object": "embedded object", "xe": "index entry", "tc": "index entry",
    **dict.fromkeys(("colortbl", "stylesheet", "nonesttables", "nonshppict", "ftnsep", "ftnsepc", "aftnsep", "author"), ""),
    **dict.fromkeys(("operator", "company", "subject", "keywords", "comment", "doccomm", "creatim", "revtim", "sp"), ""),
}  # fmt: skip
OPENED = frozenset(
    ("shpinst", "shptxt", "shppict", "fldrslt", "footnote", "listtext", "pntext", "title", "fonttbl", "fldinst")
)


@dataclass(slots=True)
class Group:
    """What holds inside a pair of braces; `kind` is that of its text, "" for the document's own."""

    kind: str = ""
    runs: list[str] = field(default_factory=list)
    level: int = BODY
    in_table: bool = False
    hidden: bool = False
    deleted: bool = False
    raised: int = 0
    codec: str = "cp1252"
    skipped: int = 1  # characters after one in Unicode, which older programs show in its place


def read(data: bytes, shown: str) -> Document:
    """The text of a document; its title is its only heading of level 1, else that of its properties.

    Raises:
        Unusable: it is damaged, or has no text.
    """
    if not data.lstrip()[:5].startswith(b"{\\rtf"):
        raise Unusable("damaged_rtf", "it is not an rtf file, or is damaged. Save or copy it again")
    return _Reader(data).run()


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data = data
        self._levels = {int(style[1]): _level(style) for style in STYLE.finditer(_part(data, b"\\stylesheet"))}
        self._codecs: dict[int, str] = {}
        self._font = 0
        self._group, self._stack = Group(), list[Group]()
        self._bytes = bytearray()
        self._default = "cp1252"
        self._to_skip = 0
        self._star = False
        self._title = ""
        self._is_item = False
        self._items: list[str] = []
        self._cells: list[str] = []
        self._rows: list[Sequence[str]] = []
        self._notes: list[str] = []
        self._outline = Outline()

    def run(self) -> Document:
        place = 0
        while match := TOKEN.match(self._data, place):
            place = match.end()
            word, number, code, sign, brace, text = match.groups()
            if word == b"bin":
                place += max(int(number or 0), 0)
            elif brace:
                self._brace(brace)
            elif word or sign:
                self._control((word or sign).decode("latin-1"), None if number is None else int(number))
            elif code or text:
                self._add_bytes(bytes([int(code, 16)]) if code else text)
        self._end_paragraph()
        self._end_blocks()
        for note in self._notes:
            self._outline.block(note)
        return self._outline.document(self._title)

    # --- groups ---

    def _brace(self, brace: bytes) -> None:
        self._flush()
        self._to_skip, self._star = 0, False
        if brace == b"{":
            if len(self._stack) > MAX_DEPTH:
                raise Unusable("too_deep", "its parts are nested too deeply. Save it again in a simpler form")
            self._stack.append(self._group)
            self._group = replace(self._group)
        elif self._stack:
            inner, self._group = self._group, self._stack.pop()
            if inner.kind != self._group.kind:
                self._close(inner)

    def _close(self, group: Group) -> None:
        text = one_line("".join(group.runs))
        if group.kind == "footnote" and text:
            self._notes.append(f"[{len(self._notes) + 1}] {text}")
            self._group.runs.append(f"[{len(self._notes)}]")
        elif group.kind == "title":
            self._title = text
        elif group.kind in {"listtext", "pntext"}:
            self._group.runs.append(f"{text if NUMBER.fullmatch(text) else BULLET} ")
            self._is_item = True
        elif group.kind == "fldinst":
            self._outline.unused["link address"] += text.upper().startswith("HYPERLINK")
        elif LEFT_OUT.get(group.kind):
            always = LEFT_OUT[group.kind] in {"picture", "embedded object"}
            self._outline.unused[LEFT_OUT[group.kind]] += bool(text) or always

    def _open(self, kind: str) -> None:
        """Begin a group of its own kind, unless it is within one that is left out."""
        if self._group.kind in LEFT_OUT or self._group.kind == "unknown":
            return
        if kind in {"shpinst", "shptxt", "shppict", "fldrslt"}:
            return
        self._group.kind, self._group.runs = kind, []

    # --- control words ---

    def _control(self, word: str, number: int | None) -> None:
        if word != "u":
            self._flush()
        star, self._star = self._star, word == "*"
        if word in OPENED or word in LEFT_OUT:
            self._open(word)
        elif star:
            self._open("unknown")
        elif word == "u":
            self._add_unicode(number or 0)
        elif word in SIGNS:
            self._add(SIGNS[word])
        elif word in {"par", "sect", "page"}:
            self._end_paragraph()
        elif word in {"cell", "nestcell"}:
            self._cells.append(self._take())
        elif word in {"row", "nestrow"}:
            self._rows.append(self._cells)
            self._cells = []
        else:
            self._set(word, number)

    def _set(self, word: str, number: int | None) -> None:
        group, on = self._group, number != 0
        match word:
            case "pard":
                group.level, group.in_table = BODY, False
            case "s":
                group.level = self._levels.get(number or 0, BODY)
            case "outlinelevel":
                group.level = BODY if number is None else number
            case "intbl":
                group.in_table = True
            case "plain":
                group.hidden, group.raised, group.deleted = False, 0, False
            case "v":
                group.hidden = on
            case "deleted":
                group.deleted = on
            case "super" | "sub":
                group.raised = (1 if word == "super" else -1) if on else 0
            case "nosupersub":
                group.raised = 0
            case "uc":
                group.skipped = number or 0
            case "ansicpg":
                self._default = group.codec = f"cp{number}"
            case "f":
                self._font = number or 0
                group.codec = self._codecs.get(self._font, self._default)
            case "fcharset":
                self._codecs[self._font] = CHARSETS.get(number or 0, self._default)

    # --- text ---

    def _add_bytes(self, data: bytes) -> None:
        self._star = False
        skipped = min(self._to_skip, len(data))
        self._to_skip -= skipped
        self._bytes += data[skipped:]

    def _add_unicode(self, number: int) -> None:
        self._flush()
        self._add(chr(number % 0x10000))
        self._to_skip = self._group.skipped

    def _flush(self) -> None:
        """Decode the bytes so far: letters of two bytes come as two control words or as one and a character."""
        if self._bytes:
            data, self._bytes = bytes(self._bytes), bytearray()
            try:
                self._add(data.decode(self._group.codec, "replace"))
            except LookupError:
                self._add(data.decode("cp1252", "replace"))

    def _add(self, text: str) -> None:
        group = self._group
        if group.kind == "fonttbl":
            return
        if not group.kind and (group.hidden or group.deleted):
            self._outline.unused["hidden text" if group.hidden else "tracked deletion"] += bool(text.strip())
        elif group.raised and text.strip():
            group.runs.append(raise_or_lower(text, raised=group.raised > 0))
        else:
            group.runs.append(text)

    # --- blocks ---

    def _take(self) -> str:
        """The text since the last block."""
        text = "".join(self._group.runs).encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        self._group.runs.clear()
        return in_lines(text, "\n")

    def _end_paragraph(self) -> None:
        group = self._group
        is_item, self._is_item = self._is_item, False
        if group.kind or group.in_table:
            group.runs.append(" ")
            return
        self._end_rows()
        text = self._take()
        if group.level == BODY and (is_item or TYPED_ITEM.match(text)):
            self._items.append(text.replace("\n", " "))
            return
        self._end_blocks()
        if group.level < BODY:
            self._outline.heading(text, group.level + 1)
        else:
            self._outline.block(text)

    def _end_blocks(self) -> None:
        self._end_rows()
        self._outline.block("\n".join(self._items))
        self._items = []

    def _end_rows(self) -> None:
        rows = [row for row in self._rows if row]
        self._rows = []
        if rows:
            self._end_blocks()
            self._outline.block(table(rows))


def _part(data: bytes, word: bytes) -> bytes:
    """A group and those within it, from its control word on."""
    start, depth = data.find(word), 1
    if start < 0:
        return b""
    for match in re.finditer(rb"\\.|[{}]", data[start : start + 2**20], re.S):
        depth += {b"{": 1, b"}": -1}.get(match[0], 0)
        if depth == 0:
            return data[start : start + match.end()]
    return b""


def _level(style: re.Match[bytes]) -> int:
    """The level of a style of headings, 0 for the highest; BODY for others."""
    if style[2]:
        return int(style[2])
    name = HEADING.match(style[3])
    return int(name[1]) - 1 if name else 0 if style[3].strip().lower() == b"title" else BODY
