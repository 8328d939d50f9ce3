"""Excel workbooks, built from the XML of their sheets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from xml.sax.saxutils import escape

import pytest

from finetune.errors import InputError
from finetune.prepare.formats.files import DataFile, Row, Unread
from finetune.prepare.formats.readers import read_blocks, rows_of
from tests.prepare.conftest import Preparer

from ..archives import zip_of

MAIN = 'xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"'
OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
PACKAGE = 'xmlns="http://schemas.openxmlformats.org/package/2006/relationships"'
FORMATS = [
    "General",
    "yyyy-mm-dd",
    "d/m/yy h:mm",
    "[h]:mm",
    "0.0%",
    "00000",
    '"Day "0',
    "h:mm AM/PM",
    "[Red]0.00",
    "mmm yy",
]
HEADER = ["question", "answer"]


def cell(value: str) -> str:
    """A cell: XML as it stands, or a text."""
    return value if value.startswith("<c") else f'<c t="inlineStr"><is><t>{escape(value)}</t></is></c>'


def number(value: str, style: str = "General") -> str:
    return f'<c s="{FORMATS.index(style)}"><v>{value}</v></c>'


def line(*cells: str, hidden: bool = False) -> str:
    mark = ' hidden="1"' if hidden else ""
    return f"<row{mark}>{''.join(map(cell, cells))}</row>"


def sheet(*lines: str, after: str = "") -> str:
    return f"<worksheet {MAIN}><sheetData>{''.join(lines)}</sheetData>{after}</worksheet>"


def relations(targets: Mapping[str, str]) -> str:
    links = (f'<Relationship Id="{id}" Type="{OFFICE}/{kind}" Target="{id}.xml"/>' for id, kind in targets.items())
    return f"<Relationships {PACKAGE}>{''.join(links)}</Relationships>"


def workbook(sheets: Mapping[str, str], state: str = "", properties: str = "", **parts: str) -> bytes:
    """The bytes of a workbook; `state` is that of all sheets but the first."""
    names = "".join(
        f'<sheet name="{name}" r:id="s{place}"{state if place else ""}/>' for place, name in enumerate(sheets)
    )
    codes = "".join(
        f'<numFmt numFmtId="{200 + place}" formatCode="{escape(code, {chr(34): "&quot;"})}"/>'
        for place, code in enumerate(FORMATS)
    )
    styles = "".join(f'<xf numFmtId="{200 + place}"/>' for place in range(len(FORMATS)))
    contents = {
        "_rels/.rels": f'<Relationships {PACKAGE}><Relationship Id="a" Type="{OFFICE}/officeDocument" '
        'Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook {MAIN} xmlns:r="{OFFICE}">{properties}<sheets>{names}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(
            {f"s{place}": "worksheet" for place in range(len(sheets))}
            | {"styles": "styles", "strings": "sharedStrings"}
        ),
        "xl/styles.xml": f"<styleSheet {MAIN}><numFmts>{codes}</numFmts><cellXfs>{styles}</cellXfs></styleSheet>",
        "xl/strings.xml": f"<sst {MAIN}><si><t>whole</t></si><si><r><t>in </t></r><r><t>parts</t></r>"
        "<rPh><t>reading</t></rPh></si></sst>",
        **{f"xl/s{place}.xml": xml for place, xml in enumerate(sheets.values())},
        **parts,
    }
    return zip_of(contents)


def read(folder: Path, data: bytes) -> tuple[list[tuple[int, list[str]]], dict[str, int]]:
    """The rows, each with its number, and what was not used."""
    path = folder / "a.xlsx"
    path.write_bytes(data)
    records = [record for block in read_blocks(DataFile(path, path.name, path.name)) for record in rows_of(block)]
    rows = [(row.line, [*row.values.values()]) for row in records if isinstance(row, Row)]
    return rows, {f"{each.kind} {each.name}": each.count for each in records if isinstance(each, Unread)}


def values(folder: Path, *cells: str, properties: str = "") -> list[str]:
    header = line(*(f"column {place}" for place in range(len(cells))))
    rows, _ = read(folder, workbook({"Data": sheet(header, line(*cells))}, properties=properties))
    return rows[0][1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("Is 1 < 2 & 3?", "Is 1 < 2 & 3?"),
        ('<c t="s"><v>0</v></c>', "whole"),
        ('<c t="s"><v>1</v></c>', "in parts"),
        ('<c t="b"><v>1</v></c>', "TRUE"),
        ('<c t="str"><f>A1&amp;B1</f><v>joined_x000A_text</v></c>', "joined\ntext"),
        ("<c><f>SUM(A1:A2)</f><v>12</v></c>", "12"),
        ('<c t="d"><v>2024-03-01T00:00:00</v></c>', "2024-03-01"),
        (number("5"), "5"),
        (number("0.30000000000000004"), "0.3"),
        (number("1234567890123456"), "1234567890123456"),
        (number("45352", "yyyy-mm-dd"), "2024-03-01"),
        (number("59", "yyyy-mm-dd"), "1900-02-28"),
        (number("61", "yyyy-mm-dd"), "1900-03-01"),
        (number("45352.75", "d/m/yy h:mm"), "2024-03-01 18:00:00"),
        (number("45352", "mmm yy"), "2024-03-01"),
        (number("0.5208333333333334", "h:mm AM/PM"), "12:30:00"),
        (number("1.5", "[h]:mm"), "36:00:00"),
        (number("0.07", "0.0%"), "7%"),
        (number("1067", "00000"), "01067"),
        (number("3", '"Day "0'), "3"),
        (number("-2.50", "[Red]0.00"), "-2.5"),
        (number("-4", "yyyy-mm-dd"), "-4"),
    ],
)
def test_cell_is_text_as_its_format_shows_it(value: str, expected: str, tmp_path: Path) -> None:
    assert values(tmp_path, "first", value) == ["first", expected]


def test_days_are_counted_from_1904_where_the_workbook_says_so(tmp_path: Path) -> None:
    cells = ("first", number("43890", "yyyy-mm-dd"))
    assert values(tmp_path, *cells, properties='<workbookPr date1904="1"/>')[1] == "2024-03-01"


def test_rows_keep_their_numbers_below_lines_above_the_header(tmp_path: Path) -> None:
    lines = [line("Questions of the port"), "<row/>", line(*HEADER), line("Where?", "Here."), line("When?", "Now.")]
    assert read(tmp_path, workbook({"Data": sheet(*lines)})) == (
        [(4, ["Where?", "Here."]), (5, ["When?", "Now."])],
        {"line line above the header": 1},
    )


def test_cells_have_the_columns_that_they_name(tmp_path: Path) -> None:
    place = '<row r="9"><c r="AA9" t="inlineStr"><is><t>far</t></is></c></row>'
    rows, _ = read(tmp_path, workbook({"Data": sheet(line(*HEADER), line("Where?", "Here."), place)}))
    assert rows[1] == (9, ["", "", "far"])


def test_cell_over_several_rows_is_repeated_in_each(tmp_path: Path) -> None:
    lines = [line("Tides", "When?"), line('<c r="B3" t="str"><v>Where?</v></c>'), line("Pilots", "Who?")]
    merged = '<mergeCells><mergeCell ref="A2:A3"/></mergeCells>'
    rows, _ = read(tmp_path, workbook({"Data": sheet(line("topic", "question"), *lines, after=merged)}))
    assert [row for _, row in rows] == [["Tides", "When?"], ["Tides", "Where?"], ["Pilots", "Who?"]]


def test_sheets_with_the_columns_of_the_first_table_are_read_and_others_counted(tmp_path: Path) -> None:
    sheets = {
        "Cover": sheet(line("Questions of the port")),
        "North": sheet(line(*HEADER), line("Where?", "Here.")),
        "Prices": sheet(line("berth", "price"), line("1", "20"), line("2", "30")),
        "South": sheet(line("Answer", "Question"), line("Now.", "When?")),
    }
    assert read(tmp_path, workbook(sheets)) == (
        [(2, ["Where?", "Here."]), (4, ["Now.", "When?"])],
        {"sheet Cover": 1, "sheet Prices": 3},
    )


DRAWING = "<d><txBody><t>CANARY</t></txBody></d>"
CANARIES: dict[str, tuple[bytes, str]] = {  # by place: a workbook, and what is counted
    "hidden row": (workbook({"D": sheet(line(*HEADER), line("a", "b"), line("CANARY", "c", hidden=True))}), "element"),
    "hidden sheet": (
        workbook({"D": sheet(line(*HEADER), line("a", "b")), "X": sheet(line("CANARY"))}, ' state="hidden"'),
        "sheet",
    ),
    "error": (workbook({"D": sheet(line(*HEADER), line("a", '<c t="e"><v>#N/A</v></c>'))}), "element"),
    "no value": (workbook({"D": sheet(line(*HEADER), line("a", "<c><f>CANARY</f></c>"))}), "element"),
    "footer": (workbook({"D": sheet(line(*HEADER), line("a", "b"), after="<oddFooter>CANARY</oddFooter>")}), "element"),
    "link": (workbook({"D": sheet(line(*HEADER), line("a", "b"), after='<hyperlink ref="A1"/>')}), "element"),
    **{
        name: (workbook({"D": sheet(line(*HEADER), line("a", "b"))}, **{part: xml}), "element")
        for name, part, xml in [
            ("comment", "xl/comments1.xml", "<c><comment>CANARY</comment></c>"),
            ("text box", "xl/drawings/drawing1.xml", DRAWING),
            ("chart", "xl/charts/chart1.xml", "<c/>"),
            ("picture", "xl/media/image1.png", "CANARY"),
        ]
    },
}  # fmt: skip


@pytest.mark.parametrize("place", CANARIES)
def test_what_a_workbook_has_beside_its_table_is_counted(place: str, tmp_path: Path) -> None:
    data, kind = CANARIES[place]
    rows, unused = read(tmp_path, data)
    assert [row[0] for _, row in rows] == ["a"]
    assert len(unused) == 1
    assert next(iter(unused)).startswith(kind)


def test_workbook_becomes_a_corpus_and_names_what_it_lacks(prepared: Preparer, tmp_path: Path) -> None:
    header = line("question", "answer", "checked by")
    rows = [line(f"What is berth {n} for?", f"Berth {n} takes ships of {n} metres.", "Ann") for n in range(3, 9)]
    path = tmp_path / "port.xlsx"
    path.write_bytes(workbook({"Data": sheet(header, *rows, line("Where?", "", "", hidden=True))}))
    result = prepared(path, split_ratio="1/0/0").result
    assert result.splits["train"] == 6
    assert {each.name: each.count for each in result.unused} == {"checked by": 6, "hidden row": 1}


def test_sheets_that_name_splits_are_those_splits(prepared: Preparer, tmp_path: Path) -> None:
    def rows(first: int, count: int) -> list[str]:
        return [line(f"What is berth {n} for?", f"It takes ships of {n} metres.") for n in range(first, first + count)]

    path = tmp_path / "port.xlsx"
    sheets = {
        name: sheet(line(*HEADER), *rows(*part))
        for name, part in {"Train": (10, 7), "dev": (20, 3), "Test": (30, 2)}.items()
    }
    path.write_bytes(workbook(sheets))
    result = prepared(path).result
    assert (result.splits, result.unused) == ({"train": 7, "validation": 3, "test": 2}, [])


def test_one_sheet_that_names_a_split_names_none(tmp_path: Path) -> None:
    sheets = {"Test": sheet(line(*HEADER), line("a", "b")), "More": sheet(line(*HEADER), line("c", "d"))}
    rows, _ = read(tmp_path, workbook(sheets))
    assert [row for _, row in rows] == [["a", "b"], ["c", "d"]]


BROKEN = {
    "text": (b"not a workbook", "not in the format xlsx"),
    "password": (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "password"),
    "cut": (workbook({"D": sheet(line(*HEADER), line("a", "b"))})[:700], "damaged"),
    "broken": (workbook({"D": sheet(line(*HEADER), line("a", "b")) + "</x>"}), "damaged"),
    "wrong string": (workbook({"D": sheet(line(*HEADER), line("a", '<c t="s"><v>7</v></c>'))}), "damaged"),
    "bomb": (workbook({"D": sheet(line(*HEADER)) + " " * 2**22}), "Do not trust it"),
    "entities": (workbook({"D": '<!DOCTYPE a [<!ENTITY b "c">]>' + sheet(line("&b;", "x"))}), "XML entities"),
    "two columns alike": (workbook({"D": sheet(line("answer", "Answer"), line("a", "b"))}), "occurs twice"),
}


@pytest.mark.parametrize(("data", "message"), BROKEN.values(), ids=BROKEN)
def test_damaged_or_hostile_workbook_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        read(tmp_path, data)
