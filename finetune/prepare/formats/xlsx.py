"""Reads rows from Excel workbooks (.xlsx): the table of the first sheet, and of the others with the same columns.

With lxml, since the libraries hide what must be told: python-calamine does not say which rows are hidden or which formulas
lack a value, and openpyxl does only with the whole workbook as objects in memory.
"""

from __future__ import annotations

import io
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from lxml import etree
from lxml.etree import _Element as Element

from finetune.errors import InputError, Unusable
from finetune.prepare.formats.cell_values import Styles, plain_text, value_of
from finetune.prepare.formats.files import DataFile, Row, Rows, Unread, in_blocks, open_file
from finetune.prepare.formats.separated import header_names
from finetune.prepare.formats.zip_package import ZipPackage, damage_error, open_package, refuse_entities
from finetune.records import SPLIT_WORDS

MAX_BYTES = 100 * 2**20  # of a workbook: as many as of a document
LOOKED_AT = 50  # rows among which the header is searched
CELL = re.compile(r"([A-Z]{1,3})([0-9]{1,7})")
MERGED = re.compile(rb'<(?:\w+:)?mergeCell\s[^>]*?ref="([A-Z]{1,3})(\d{1,7}):[A-Z]{1,3}(\d{1,7})"')
# What a sheet has beside its cells, by the beginning of the elements.
BESIDE = {
    "header or footer": re.compile(rb"<(?:\w+:)?(?:odd|even|first)(?:Header|Footer)>"),
    "link address": re.compile(rb"<(?:\w+:)?hyperlink\s"),
}
PARTS = {  # parts of a workbook that have text or pictures but are no sheets, with the elements that count
    "comment": (re.compile(r"xl/comments.*\.xml"), "comment"),
    "text box": (re.compile(r"xl/drawings/[^/]*\.xml"), "txBody"),
    "chart": (re.compile(r"xl/charts/chart[^/]*\.xml"), None),
    "picture": (re.compile(r"xl/media/.*"), None),
}


@dataclass(frozen=True, slots=True)
class SheetRow:
    """A row of a sheet: its number and its cells with text, by the numbers of their columns."""

    number: int
    cells: Mapping[int, str]


@dataclass(frozen=True, slots=True)
class Table:
    """A sheet with a header: its line, and the names of its columns by their numbers."""

    sheet: str
    data: bytes
    header: int
    names: Mapping[int, str]


def read_xlsx(file: DataFile) -> Iterator[Rows]:
    """Blocks of rows, with the names in the header; values are text as in an exported CSV file."""
    with open_file(file) as raw:
        data = raw.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(f"{file.shown} has more than {MAX_BYTES // 2**20} MiB. Save its sheets as CSV files")
    try:
        with open_package(data, "xlsx") as parts:
            yield from in_blocks(_rows(file, _Workbook(parts)))
    except Unusable as problem:
        raise InputError(f"{file.shown}: {problem}") from None


def _rows(file: DataFile, book: _Workbook) -> Iterator[Row | Unread]:
    tables = list(_tables(file, book))
    if not tables:
        return
    wide = next((table for table in tables if len(table.names) > 1), tables[0])
    alike = [table for table in tables if _columns(table) == _columns(wide)]
    splits = {SPLIT_WORDS.get(table.sheet.lower()) for table in alike} - {None}
    before = 0  # lines of earlier sheets, so that each row has a number of its own
    for table in tables:
        if table not in alike:
            yield Unread("sheet", table.sheet, book.size(table.data))
            continue
        named = {"split": table.sheet} if len(splits) > 1 and table.sheet.lower() in SPLIT_WORDS else {}
        number = 0
        for line in book.lines(table.data):
            number = line.number
            if number > table.header:
                yield Row(before + number, named | _values(table.names, line.cells))
            elif number < table.header:
                yield Unread("line", "line above the header")
        before += number
    yield from (Unread("sheet", name, count) for name, count in book.unread.items())
    yield from (Unread("element", name, count) for name, count in (book.unused + book.beside()).items())


def _columns(table: Table) -> frozenset[str]:
    return frozenset(name.casefold() for name in table.names.values())


def _values(names: Mapping[int, str], cells: Mapping[int, str]) -> dict[str, str]:
    """The values of a row; a cell in a column without a name has the number of the column for a name."""
    values = {name: cells.get(column, "") for column, name in names.items()}
    return values | {f"unnamed {column}": text for column, text in cells.items() if column not in names}


def _tables(file: DataFile, book: _Workbook) -> Iterator[Table]:
    for name, data in book.sheets():
        first = list(islice(book.lines(data, count=False), LOOKED_AT))
        if not first:
            continue
        usual = sorted(len(line.cells) for line in first)[len(first) // 2]
        header = next(line for line in first if 2 * len(line.cells) > usual)
        names = header_names(f"{file.shown} ({name})", header.number, [*header.cells.values()])
        yield Table(name, data, header.number, dict(zip(header.cells, names, strict=True)))


class _Workbook:
    """The sheets of a workbook; `unused` counts what is left out of lines, `unread` the rows of sheets that are not visible."""

    def __init__(self, parts: ZipPackage) -> None:
        self.unused: Counter[str] = Counter()
        self.unread: Counter[str] = Counter()
        self._parts = parts
        self._main = parts.main_part()
        self._root = parts.root(self._main)
        self._targets = parts.targets(self._main)
        dates = self._root.find("{*}workbookPr")
        from_1904 = dates is not None and dates.get("date1904") in {"1", "true"}
        self._styles = Styles(self._related("styles"), from_1904=from_1904)

    def sheets(self) -> Iterator[tuple[str, bytes]]:
        """The names of the visible sheets, and their XML."""
        for sheet in self._root.iterfind("{*}sheets/{*}sheet"):
            name = sheet.get("name", "")
            target = next(
                (self._targets.get(str(value)) for key, value in sheet.items() if str(key).endswith("}id")), None
            )
            if target is None or target.kind != "worksheet":
                self.unread[name] += 1  # a chart or a macro
                continue
            data = self._parts.part(target.name)
            if data is None:
                raise damage_error("xlsx")
            refuse_entities(data)
            if sheet.get("state", "visible") == "visible":
                yield name, data
            else:
                self.unread[f"{name} (hidden)"] += self.size(data)

    def size(self, data: bytes) -> int:
        """The number of rows of a sheet that have text."""
        return sum(1 for _ in self.lines(data, count=False))

    def lines(self, data: bytes, *, count: bool = True) -> Iterator[SheetRow]:
        """The rows of a sheet that have text and are not hidden; a cell is repeated in the rows that it covers."""
        unused = self.unused if count else Counter()
        covered = _covered(data)
        above: dict[int, tuple[int, str]] = {}  # column -> the last row that a cell covers, and its text
        number = 0
        for row in _elements(data):
            number = int(row.get("r", "")) if row.get("r", "").isdecimal() else number + 1
            cells = self._cells(row, unused)
            for column, last in covered.get(number, ()):
                above[column] = (last, cells.get(column, ""))
            if row.get("hidden") in {"1", "true"}:
                unused["hidden row"] += bool(cells)
            elif cells:
                above = {column: cell for column, cell in above.items() if cell[0] >= number}
                yield SheetRow(number, cells | {column: text for column, (_, text) in above.items() if text})
        for name, pattern in BESIDE.items():
            unused[name] += len(pattern.findall(data))

    def beside(self) -> Counter[str]:
        """What the workbook has beside its sheets, by name."""
        counts: Counter[str] = Counter()
        for name, (pattern, tag) in PARTS.items():
            for part in filter(pattern.fullmatch, self._parts.names):
                counts[name] += 1 if tag is None else sum(1 for _ in self._parts.root(part).iter(f"{{*}}{tag}"))
        return counts

    def _cells(self, row: Element, unused: Counter[str]) -> dict[int, str]:
        cells: dict[int, str] = {}
        column = 0
        for cell in row.iterfind("{*}c"):
            place = CELL.fullmatch(cell.get("r", ""))
            column = _column(place[1]) if place else column + 1
            kind, raw = cell.get("t", "n"), cell.findtext("{*}v")
            if kind == "s":
                text = self._string(raw)
            elif kind == "e":
                text = ""
                unused["error value"] += 1
            else:
                text = value_of(cell, kind, raw, self._styles)
                unused["formula without a value"] += not raw and cell.find("{*}f") is not None and kind != "str"
            if text.strip():
                cells[column] = text
        return cells

    def _string(self, number: str | None) -> str:
        try:
            return self._strings[int(number or "")]
        except (ValueError, IndexError):
            raise damage_error("xlsx") from None

    @cached_property
    def _strings(self) -> list[str]:
        root = self._related("sharedStrings")
        return [] if root is None else [plain_text(item) for item in root.iterfind("{*}si")]

    def _related(self, kind: str) -> Element | None:
        name = next((target.name for target in self._targets.values() if target.kind == kind), None)
        return None if name is None else self._parts.root(name)


def _elements(data: bytes) -> Iterator[Element]:
    """The rows of a sheet, none of which is kept in memory."""
    rows: Iterable[tuple[str, Element]] = etree.iterparse(
        io.BytesIO(data), events=("end",), tag="{*}row", resolve_entities=False, no_network=True, load_dtd=False
    )
    try:
        for _, row in rows:
            yield row
            row.clear()
            while (before := row.getprevious()) is not None and (parent := row.getparent()) is not None:
                parent.remove(before)
    except etree.XMLSyntaxError:
        raise damage_error("xlsx") from None


def _covered(data: bytes) -> dict[int, list[tuple[int, int]]]:
    """The cells that cover several rows, by their first row: column and last row."""
    covered: dict[int, list[tuple[int, int]]] = {}
    for letters, first, last in MERGED.findall(data):
        if int(last) > int(first):
            covered.setdefault(int(first), []).append((_column(letters.decode()), int(last)))
    return covered


def _column(letters: str) -> int:
    """The number of a column: 1 for A, 27 for AA."""
    number = 0
    for letter in letters:
        number = number * 26 + ord(letter) - ord("A") + 1
    return number
