"""PDF files, written by hand so that each stroke is known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from itertools import pairwise

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents import pdf, reflow
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

WORDS = ["the", "liver", "makes", "proteins", "and", "cleans", "the", "blood", "while", "it", "stores"]


def text(across: float, down: float, words: str, *, size: float = 10, font: str = "F1") -> str:
    escaped = words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"BT /{font} {size} Tf {across} {down} Td ({escaped}) Tj ET"


def lines(across: float, down: float, *texts: str, step: float = 12) -> list[str]:
    return [text(across, down - place * step, line) for place, line in enumerate(texts)]


def file(
    *pages: Sequence[str],
    title: str = "",
    notes: Sequence[str] = (),
    form: str = "",
    catalog: str = "",
    extra: str = "",
    trailer: str = "",
) -> bytes:
    """A PDF with the given drawing commands on each page, and annotations (fields of a form among them) on each."""
    shown = " ".join(f"{6 + 2 * len(pages) + place} 0 R" for place in range(len(notes)))
    objects = [f"<</Type/Catalog/Pages 2 0 R/AcroForm<</Fields[{shown}]{form}>>{catalog}>>", "", f"<</Title({title})>>"]
    for font in ("Helvetica", "Helvetica-Bold"):
        objects.append(f"<</Type/Font/Subtype/Type1/BaseFont/{font}/Encoding/WinAnsiEncoding>>")
    numbers = []
    for page in pages:
        stream = "\n".join(page)
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {len(objects)} 0 R"
            f"/Resources<</Font<</F1 4 0 R/F2 5 0 R>>>>/Annots[{shown}]>>"
        )
        numbers.append(len(objects))
    objects[1] = f"<</Type/Pages/Count {len(numbers)}/Kids[{' '.join(f'{number} 0 R' for number in numbers)}]>>"
    objects += [f"<</Type/Annot{note}>>" for note in notes] + ([extra] if extra else [])
    data, places = b"%PDF-1.4\n", []
    for number, content in enumerate(objects, 1):
        places.append(len(data))
        data += f"{number} 0 obj\n{content}\nendobj\n".encode("latin-1")
    table = "".join(f"{place:010d} 00000 n \n" for place in places)
    end = f"xref\n0 {len(objects) + 1}\n0000000000 65535 f \n{table}trailer<</Size {len(objects) + 1}/Root 1 0 R/Info 3 0 R"
    return data + f"{end}{trailer}>>\nstartxref\n{len(data)}\n%%EOF".encode()


def read(data: bytes) -> Document:
    return read_document(data, "a.pdf", "a.pdf")


def refused(data: bytes) -> str:
    with pytest.raises(Unusable) as caught:
        read(data)
    return caught.value.reason


def body(document: Document) -> str:
    return "\n\n".join(section.text for section in document.sections)


def test_lines_of_a_paragraph_are_joined_and_gaps_part_paragraphs() -> None:
    page = lines(50, 700, "The liver cleans", "the blood.") + lines(50, 660, "It stores sugar.")
    assert read(file(page, title="Liver")) == Document(
        "Liver", (Section(None, 0, "The liver cleans the blood.\n\nIt stores sugar."),)
    )


def test_broken_words_are_mended() -> None:
    assert body(read(file(lines(50, 700, "The liver makes pro-", "teins for the blood.")))) == (
        "The liver makes proteins for the blood."
    )


RAISE, LOWER, BACK = "4 Ts /F1 6.5 Tf", "-2 Ts /F1 6.5 Tf", "0 Ts /F1 10 Tf"


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (
            f"(It holds 10) Tj {RAISE} (3) Tj {BACK} ( litres of H) Tj {LOWER} (2) Tj {BACK} (O.) Tj",
            "10³ litres of H₂O.",
        ),
        (f"(a speed of 3 m s) Tj {RAISE} (-1) Tj {BACK} ( in the canal) Tj", "3 m s⁻¹ in the canal"),
        (f"(when x) Tj {LOWER} (max) Tj {BACK} ( is reached) Tj", "when x_max is reached"),
        (f"(on the 5) Tj {RAISE} (th) Tj {BACK} ( of May) Tj", "on the 5th of May"),
        (f"{RAISE} (2) Tj {BACK} (See the register.) Tj", "²See the register."),
        ("(2 x 10) Tj 4 Ts (6) Tj 0 Ts ( grams) Tj", "2 x 10⁶ grams"),
        ("(THE ) Tj /F1 7.5 Tf (LIVER) Tj /F1 10 Tf ( works) Tj", "THE LIVER works"),
    ],
)
def test_raised_and_lowered_signs_stay_in_their_sentence(drawn: str, expected: str) -> None:
    page = [*lines(50, 720, "The first line."), f"BT /F1 10 Tf 50 708 Td {drawn} ET", *lines(50, 696, "the next line")]
    found = body(read(file(page)))
    assert expected in found
    assert "\n" not in found


def test_exponent_that_touches_the_line_above_stays_in_its_own() -> None:
    page = [
        *lines(50, 720, "The garden of the mill is big, as one can see;"),
        f"BT /F1 10 Tf 50 710 Td (it has 40 m) Tj {RAISE} (2) Tj {BACK} ( of trees.) Tj ET",
    ]
    assert body(read(file(page))) == "The garden of the mill is big, as one can see; it has 40 m² of trees."


def test_lines_are_joined_without_blanks_in_scripts_without_blanks() -> None:
    joined = reflow._join(["灯台守は", "塔の隣の家に住", "んでいた。Ada", "はいた", "2024-", "2025"], Counter, 0)
    assert joined == "灯台守は塔の隣の家に住んでいた。Ada はいた 2024-2025"


@pytest.mark.parametrize(
    "title",
    ["untitled", "(anonymous)", "Microsoft Word - offer_v3 (2).docx", "leaflet.indd", "PowerPoint Presentation"],
)
def test_title_that_a_program_wrote_is_not_used(title: str) -> None:
    document = read(file(lines(50, 700, "Text."), title=title.replace("(", "\\(").replace(")", "\\)")))
    assert (document.title, document.unused) == (None, {"title": 1})


def field(left: float, down: float, contents: str, *, width: float = 100) -> str:
    return f"/Subtype/Widget/F 4/Rect[{left} {down - 4} {left + width} {down + 12}]/T(f{left}-{down}){contents}"


def test_values_of_a_form_stand_at_their_labels() -> None:
    page = [
        *lines(50, 700, "Owner:"),
        *lines(50, 660, "Harbour:"),
        *lines(70, 620, "I accept the rules"),
        *lines(50, 580, "Sail"),
        *lines(150, 580, "Motor"),
        *lines(50, 540, "Remarks:"),
        *lines(50, 500, "Signature:"),
        *grid([50, 150, 350], [400, 440, 460]),
        *lines(55, 448, "Length"),
        *lines(155, 448, "Width"),
        *lines(55, 420, "9 m"),
    ]
    state = "/AP<</N<</Yes 4 0 R/Off 4 0 R>>>>"
    notes = [
        field(100, 700, "/FT/Tx/V(Ada of Brod)"),
        field(100, 660, "/FT/Ch/Ff 131072/Opt[(Ulm)(Brod)]/V(Ulm)"),
        field(50, 620, f"/FT/Btn/V/Yes/AS/Yes{state}", width=12),
        field(80, 580, f"/FT/Btn/V/Off/AS/Off{state}", width=12),
        field(190, 580, f"/FT/Btn/V/Yes/AS/Yes{state}", width=12),
        field(50, 520, "/FT/Tx/V(It leaks.)"),
        field(120, 500, "/FT/Sig"),
        field(155, 420, "/FT/Tx/V(three metres)"),
        field(300, 700, "/FT/Tx"),
        field(300, 660, "/FT/Tx/Ff 8192/V(secret)"),
        "/Subtype/FreeText/Rect[100 538 200 552]/Contents(bring a rope)",
        "/Subtype/Text/Rect[300 300 320 320]/Contents(ask Bo)",
        "/Subtype/Link/Rect[300 300 320 320]",
    ]
    document = read(file(page, notes=notes))
    assert body(document) == (
        "Owner: Ada of Brod\n\nHarbour: Ulm\n\n☒ I accept the rules\n\nSail ☐ Motor ☒\n\nRemarks: bring a rope\n\n"
        "It leaks.\n\nSignature:\n\n| Length | Width |\n| --- | --- |\n| 9 m | three metres |"
    )
    assert document.unused == {"form field": 3, "comment": 1}


def test_values_in_a_table_without_printed_text_are_text() -> None:
    notes = [
        field(55 + 100 * place, 420 + 20 * row, f"/FT/Tx/V({place}-{row})", width=80)
        for place in (0, 1)
        for row in (0, 1)
    ]
    page = [*lines(50, 500, "Above."), *grid([50, 150, 250], [414, 434, 454]), *lines(50, 380, "Below.")]
    found = body(read(file(page, notes=notes)))
    assert found == "Above.\n\n| 0-1 | 1-1 |\n| --- | --- |\n| 0-0 | 1-0 |\n\nBelow."


def test_form_whose_text_is_not_on_its_pages_is_refused() -> None:
    data = file(lines(50, 700, "Please wait..."), form="/XFA[(form)4 0 R]", catalog="/NeedsRendering true")
    assert refused(data) == "xfa_pdf"


PICTURE = "q 500 0 0 700 50 50 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"


def test_invisible_text_watermarks_and_pictures_are_counted() -> None:
    page = [
        *lines(50, 700, "Visible text."),
        "BT /F1 10 Tf 3 Tr 50 500 Td (invisible) Tj ET",
        "BT /F2 60 Tf 0 Tr 0.7 0.7 -0.7 0.7 200 300 Tm (DRAFT) Tj ET",
    ]
    document = read(file(page, [PICTURE]))
    assert body(document) == "Visible text."
    assert document.unused == {"invisible text": 1, "watermark": 1, "page that is a picture": 1}


def test_invisible_text_is_text_only_on_a_scanned_page() -> None:
    invisible = "BT /F1 10 Tf 3 Tr 50 500 Td (recognised) Tj ET"
    document = read(file([PICTURE, invisible]))
    assert (body(document), document.unused) == ("recognised", {"picture": 1})
    logo = PICTURE.replace("500 0 0 700", "50 0 0 70")
    document = read(file([logo, *lines(50, 300, "Text."), invisible]))
    assert (body(document), document.unused) == ("Text.", {"picture": 1, "invisible text": 1})


def test_larger_and_bold_lines_are_headings() -> None:
    page = [
        text(50, 750, "On the Liver", size=18),
        text(50, 710, "Its work", size=13),
        *lines(50, 690, "It cleans the blood", "of the whole body."),
        text(50, 650, "Its place", font="F2"),
        *lines(50, 630, "It lies below the ribs", "on the right side."),
    ]
    assert read(file(page, title="other")) == Document(
        "On the Liver",
        (
            Section("Its work", 2, "It cleans the blood of the whole body."),
            Section("Its place", 3, "It lies below the ribs on the right side."),
        ),
        {"title": 1},
    )


def test_running_head_foot_and_page_numbers_are_not_text() -> None:
    pages = [
        [
            text(250, 780, "Bulletin, volume 3"),
            *lines(50, 700, f"Text of page {name}."),
            text(250, 30, f"Bulletin - page {number}"),
            text(300, 15, str(number)),
        ]
        for number, name in enumerate(("one", "two", "three"), 1)
    ]
    document = read(file(*pages))
    assert body(document) == "Text of page one.\n\nText of page two.\n\nText of page three."
    assert document.unused == {"running head or foot": 6, "page number": 3}


YEARS = ("2019", "2020", "2021", "2022")
NAMES = ("one", "two", "three", "four", "five", "six")


@pytest.mark.parametrize(
    "foot",
    [
        ("4512", "387", "1999", "12"),
        ("1", "3", "2", "4"),
        ("Total of house 7: 12", "Total of house 8: 19", "Total of house 9: 4", "Total of house 10: 4"),
        ("Day 1", "Day 2", "Day 3", "Day 4"),
        ("It is open until 6.", "It is open until 7.", "It is open until 8.", "It is open until 9."),
    ],
)
@pytest.mark.parametrize("height", [30, 780])
def test_readings_sums_and_days_at_the_edge_of_a_page_are_text(foot: Sequence[str], height: int) -> None:
    pages = [
        [*lines(50, 700, f"Text {name}."), text(50, height, line)] for name, line in zip(NAMES, foot, strict=False)
    ]
    document = read(file(*pages))
    assert [line for line in foot if line not in body(document)] == []
    assert document.unused == {}


def test_years_that_end_the_text_of_each_page_are_text() -> None:
    pages = [
        lines(50, 700, f"Text {name}", "and what was sold in", year) for name, year in zip(NAMES, YEARS, strict=False)
    ]
    document = read(file(*pages))
    assert [year for year in YEARS if year not in body(document)] == []


def test_large_numbers_above_the_text_of_each_page_are_headings() -> None:
    pages = [[text(50, 760, str(n), size=24), *lines(50, 700, f"Text {name}.")] for n, name in enumerate(NAMES[:4], 1)]
    assert [section.heading for section in read(file(*pages)).sections] == ["1", "2", "3", "4"]


def test_line_between_text_and_a_sum_is_text_though_it_repeats() -> None:
    pages = [lines(50, 700, f"Text {name}.", "Crates sold:", count) for name, count in zip(NAMES, "4913", strict=False)]
    assert body(read(file(*pages))).count("Crates sold:") == 4


@pytest.mark.parametrize(
    "numbers",
    [
        ("", "2", "3", "4"),
        ("i", "ii", "iii", "1", "2", "3"),
        ("1/4", "2/4", "3/4", "4/4"),
        ("Leaflet | 5", "Leaflet | 6", "Leaflet | 7", "Leaflet | 8"),
        ("5 - Leaflet", "6 - Leaflet", "7 - Leaflet", "8 - Leaflet"),
    ],
)
def test_numbers_that_count_the_pages_are_not_text(numbers: Sequence[str]) -> None:
    pages = [
        [*lines(50, 700, f"Text {name}."), text(300, 20, number)] for name, number in zip(NAMES, numbers, strict=False)
    ]
    assert body(read(file(*pages))) == "\n\n".join(f"Text {name}." for name in NAMES[: len(numbers)])


def test_paragraph_runs_over_the_page() -> None:
    one = [text(250, 780, "Head"), *lines(50, 700, "It makes proteins and"), text(300, 15, "1")]
    two = [text(250, 780, "Head"), *lines(50, 700, "cleans the blood."), text(300, 15, "2")]
    assert body(read(file(one, two))) == "It makes proteins and cleans the blood."


def column(across: float, name: str, rows: int = 12) -> list[str]:
    return lines(across, 700, *(f"{name} {place} " + " ".join(WORDS[place % 3 :][:7]) for place in range(rows)))


@pytest.mark.parametrize("by_row", [True, False])
def test_columns_are_read_one_after_the_other(by_row: bool) -> None:
    left, right = column(40, "left"), column(320, "right")
    drawn = [line for pair in zip(left, right, strict=True) for line in pair] if by_row else left + right
    found = body(read(file([text(40, 760, "A title over both columns"), *drawn]))).split()
    order = [f"{word} {found[place + 1]}" for place, word in enumerate(found) if word in {"left", "right"}]
    assert order == [f"left {place}" for place in range(12)] + [f"right {place}" for place in range(12)]
    assert found[:3] == ["A", "title", "over"]


def grid(across: Sequence[float], down: Sequence[float]) -> list[str]:
    rules = [f"{across[0]} {y} m {across[-1]} {y} l S" for y in down]
    return rules + [f"{x} {down[0]} m {x} {down[-1]} l S" for x in across]


def boxes(across: Sequence[float], down: Sequence[float]) -> list[str]:
    return [
        f"{left} {bottom} {right - left} {top - bottom} re S"
        for left, right in pairwise(across)
        for bottom, top in pairwise(down)
    ]


@pytest.mark.parametrize("drawn", [grid, boxes])
def test_ruled_table_becomes_a_table(drawn: object) -> None:
    assert callable(drawn)
    page = [
        *lines(50, 750, "Before the table."),
        *drawn([50, 150, 350], [600, 640, 680, 700]),
        *lines(55, 688, "Drug"),
        *lines(155, 688, "Dose"),
        *lines(55, 665, "one"),
        *lines(155, 665, "10 mg in the morning", "and in the evening"),
        *lines(55, 625, "two"),
        *lines(155, 625, "20 mg"),
        *lines(50, 550, "After the table."),
    ]
    assert body(read(file(page))) == (
        "Before the table.\n\n| Drug | Dose |\n| --- | --- |\n| one | 10 mg in the morning and in the evening |\n"
        "| two | 20 mg |\n\nAfter the table."
    )


def test_words_that_are_broken_in_a_cell_are_mended() -> None:
    drawn = [*boxes((50, 150, 250), (710, 670, 630)), *lines(60, 700, "A GPS-", "guided har-", "bour boat")]
    drawn += [*lines(160, 700, "by e-", "mail"), text(60, 650, "Raft"), text(160, 650, "free")]
    assert body(read(file(drawn))) == ("| A GPS-guided harbour boat | by e-mail |\n| --- | --- |\n| Raft | free |")


def test_table_that_goes_on_over_the_page_is_one() -> None:
    pages = [
        [
            *grid([50, 150, 350], [640, 680, 700]),
            *lines(55, 688, "Drug"),
            *lines(155, 688, "Dose"),
            *lines(55, 665, name),
            *lines(155, 665, "10 mg"),
        ]
        for name in ("one", "two")
    ]
    assert body(read(file(*pages))) == "| Drug | Dose |\n| --- | --- |\n| one | 10 mg |\n| two | 10 mg |"


def cells(rows: Sequence[str], places: Sequence[float]) -> list[str]:
    return [
        text(across, 700 - 14 * number, cell)
        for number, row in enumerate(rows)
        for across, cell in zip(places, row.split("|"), strict=True)
        if cell
    ]


@pytest.mark.parametrize(
    ("drawn", "expected"),
    [
        (
            cells(["Boat|Summer|Winter", "Canoe|10 euros|5 euros", "Raft||free"], (50, 150, 250)),
            "| Boat | Summer | Winter |\n| --- | --- | --- |\n| Canoe | 10 euros | 5 euros |\n| Raft |  | free |",
        ),
        (
            cells(["Boat|Fee", "Canoe|10 euros", "Raft|free"], (50, 150)),
            "| Boat | Fee |\n| --- | --- |\n| Canoe | 10 euros |\n| Raft | free |",
        ),
        (
            cells(["The lamp is as|The boat is also", "old as the town|from that year and", "and burns|has a sail"], (50, 250)),
            "The lamp is as old as the town and burns\n\nThe boat is also from that year and has a sail",
        ),
        (cells(["1.|Wash the filter.", "2.|Close the door.", "3.|Ring the bell."], (50, 80)), None),
        (cells(["Summer of the year|in Brod"], (50, 250)), "Summer of the year in Brod"),
    ],
)  # fmt: skip
def test_aligned_cells_are_a_table(drawn: Sequence[str], expected: str | None) -> None:
    found = body(read(file([*lines(50, 760, "Before."), *drawn, *lines(50, 600, "After.")])))
    assert "|" not in found if expected is None else found == f"Before.\n\n{expected}\n\nAfter."


def test_bullets_are_a_list() -> None:
    page = lines(50, 700, "It makes:") + lines(60, 685, "\x95 proteins that", "stay in blood", "\x95 bile")
    assert body(read(file(page))) == "It makes:\n\n- proteins that stay in blood\n- bile"


def test_scanned_file_is_told_from_an_empty_one() -> None:
    assert refused(file([PICTURE])) == "scanned_pdf"
    assert refused(file([])) == "no_text"


def test_file_with_a_password_is_refused() -> None:
    keys = "(" + "a" * 32 + ")"
    extra = f"<</Filter/Standard/V 1/R 2/O{keys}/U{keys}/P -4>>"
    data = file(lines(50, 700, "secret"), extra=extra, trailer="/Encrypt 8 0 R/ID[<00><00>]")
    assert refused(data) == "encrypted_pdf"


@pytest.mark.parametrize("data", [b"", b"%PDF-1.4\n", b"no PDF at all", file(lines(50, 700, "x"))[:300]])
def test_damaged_file_is_refused(data: bytes) -> None:
    assert refused(data) in {"damaged_pdf", "no_text"}


def test_limits_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    data = file(lines(50, 700, "one"), lines(50, 700, "two"))
    monkeypatch.setattr(pdf, "MAX_PAGES", 1)
    assert refused(data) == "too_large"
    monkeypatch.setattr(pdf, "MAX_PAGES", 2)
    monkeypatch.setattr(pdf, "MAX_SECONDS", -1.0)
    assert refused(data) == "slow_pdf"
    monkeypatch.setattr(pdf, "MAX_SECONDS", 10.0)
    monkeypatch.setattr(pdf, "MAX_TEXT", 2)
    assert refused(data) == "too_large"


def test_drawing_of_many_lines_is_no_table_and_takes_no_time() -> None:
    rules = [f"{place % 500} 0 m {place % 500} 700 l S" for place in range(20_000)]
    assert body(read(file([*rules, *lines(50, 700, "Text below a drawing.")]))) == "Text below a drawing."


def test_letters_without_meaning_are_refused() -> None:
    data = file(["BT /F1 10 Tf 50 700 Td <0102030405060708> Tj ET"])
    assert refused(data) in {"unreadable_pdf", "no_text"}


CANARIES = {  # by place: what is drawn, an annotation, and what is counted where the canary is no text
    "line": (text(50, 600, "CANARY"), "", ""),
    "heading": (text(50, 600, "CANARY", size=20), "", ""),
    "upside down": ("BT /F1 10 Tf -1 0 0 -1 200 600 Tm (CANARY) Tj ET", "", ""),
    "exponent": (f"BT /F1 10 Tf 50 600 Td (x) Tj {RAISE} (CANARY) Tj ET", "", ""),
    "slanted": ("BT /F1 10 Tf 0.7 0.7 -0.7 0.7 200 600 Tm (CANARY) Tj ET", "", "watermark"),
    "invisible": ("BT /F1 10 Tf 3 Tr 50 600 Td (CANARY) Tj 0 Tr ET", "", "invisible text"),
    "text field": ("", field(50, 600, "/FT/Tx/V(CANARY)"), ""),
    "choice": ("", field(50, 600, "/FT/Ch/Ff 131072/Opt[(CANARY)]/V(CANARY)"), ""),
    "list": ("", field(50, 600, "/FT/Ch/Opt[(CANARY)(no)]/V(CANARY)/I[0]"), ""),
    "hidden field": ("", field(50, 600, "/FT/Tx/V(CANARY)").replace("/F 4", "/F 2"), "form field"),
    "password": ("", field(50, 600, "/FT/Tx/Ff 8192/V(CANARY)"), "form field"),
    "button": ("", field(50, 600, "/FT/Btn/Ff 65536/MK<</CA(CANARY)>>"), "form field"),
    "note": ("", "/Subtype/Text/Rect[50 600 70 620]/Contents(CANARY)", "comment"),
    "highlight": ("", "/Subtype/Highlight/Rect[50 600 70 620]/Contents(CANARY)", "comment"),
    "typed": ("", "/Subtype/FreeText/Rect[50 600 150 620]/Contents(CANARY)", ""),
    "picture": ("q 50 0 0 50 50 550 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q", "", "picture"),
}  # fmt: skip


@pytest.mark.parametrize("place", CANARIES)
def test_canary_on_a_page_is_text_or_counted(place: str) -> None:
    drawn, note, name = CANARIES[place]
    document = read(file([*lines(50, 700, "The first line.", "The second line."), drawn], notes=[note] if note else []))
    shown = "CANARY" in f"{document.title} {document.sections[0].heading} {body(document)}"
    assert (shown, dict(document.unused)) == (not name, {name: 1} if name else {})


def test_attachment_is_counted() -> None:
    names = "/Names<</EmbeddedFiles<</Names[(a.txt)<</Type/Filespec/F(a.txt)/EF<</F 6 0 R>>>>]>>>>"
    assert read(file(lines(50, 700, "Text."), catalog=names)).unused == {"attachment": 1}
