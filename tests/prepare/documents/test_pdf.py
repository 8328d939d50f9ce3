"""PDF files, written by hand so that each stroke is known."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest

from finetune.errors import Unusable
from finetune.prepare.documents import pdf
from finetune.prepare.documents.readers import read_document
from finetune.records import Document, Section

WORDS = ["the", "liver", "makes", "proteins", "and", "cleans", "the", "blood", "while", "it", "stores"]


def text(across: float, down: float, words: str, *, size: float = 10, font: str = "F1") -> str:
    escaped = words.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")
    return f"BT /{font} {size} Tf {across} {down} Td ({escaped}) Tj ET"


def lines(across: float, down: float, *texts: str, step: float = 12) -> list[str]:
    return [text(across, down - place * step, line) for place, line in enumerate(texts)]


def file(*pages: Sequence[str], title: str = "", extra: str = "", trailer: str = "") -> bytes:
    """A PDF with the given drawing commands on each page."""
    objects = ["<</Type/Catalog/Pages 2 0 R>>", "", f"<</Title({title})>>"]
    for font in ("Helvetica", "Helvetica-Bold"):
        objects.append(f"<</Type/Font/Subtype/Type1/BaseFont/{font}/Encoding/WinAnsiEncoding>>")
    numbers = []
    for page in pages:
        stream = "\n".join(page)
        objects.append(f"<</Length {len(stream)}>>stream\n{stream}\nendstream")
        objects.append(
            f"<</Type/Page/Parent 2 0 R/MediaBox[0 0 600 800]/Contents {len(objects)} 0 R"
            "/Resources<</Font<</F1 4 0 R/F2 5 0 R>>>>>>"
        )
        numbers.append(len(objects))
    objects[1] = f"<</Type/Pages/Count {len(numbers)}/Kids[{' '.join(f'{number} 0 R' for number in numbers)}]>>"
    objects += [extra] if extra else []
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
    assert body(read(file(*pages))) == "Text of page one.\n\nText of page two.\n\nText of page three."


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


def test_bullets_are_a_list() -> None:
    page = lines(50, 700, "It makes:") + lines(60, 685, "\x95 proteins that", "stay in blood", "\x95 bile")
    assert body(read(file(page))) == "It makes:\n\n- proteins that stay in blood\n- bile"


def test_scanned_file_is_told_from_an_empty_one() -> None:
    picture = "q 500 0 0 700 50 50 cm BI /W 1 /H 1 /CS /G /BPC 8 ID \x80 EI Q"
    assert refused(file([picture])) == "scanned_pdf"
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
