"""Line ends of plain text: those of a wrapped text are the printer's, all others are the author's."""

from __future__ import annotations

import pytest

from finetune.prepare.documents.readers import read_document

POEM = "The kettle sang beside the door\nThe cat lay on the sill\nA cart went by, and no more\nAnd all the street was still"
DIALOGUE = "Ann: Who has the key?\nBen: It hangs in the hall.\nAnn: Then open the gate before they come!"
CODE = 'def volume(a, b):\n    """Volume."""\n    if a < 0:\n        raise ValueError(a)\n    return a * b'
TABS = "for key in keys:\n\tif key:\n\t\tprint(key)"
MAKE = "MAX_SPEED = 40\n\nlimit_speed(MAX_SPEED)"
RECIPE = "Dumplings\n300 g flour\n1 egg\na little salt\ncold water"
ADDRESS = "Mill & Daughters\n7 Weir Lane\nOldbrook"
COLUMNS = "Name      Year   Place\nEda         12   Rill\nOtto         9   Fenn"
LOG = "\n".join(
    f"2031-05-0{day} 07:15:2{day} INFO pump {day} was started by the timer of hall {day}" for day in range(1, 6)
)
SENTENCES = "\n".join(
    f"The {bird} was seen near the old weir on the first {day} of the spring."
    for bird, day in (("heron", "Monday"), ("kestrel", "Sunday"), ("wagtail", "Friday"), ("dipper", "Tuesday"))
)
FREE_VERSE = "rain again\nand the gutters talk\nall night of a sea\nthey have never met"
DIFF = " keep\n+ new line\n- old line"


@pytest.mark.parametrize(
    "text", [POEM, DIALOGUE, CODE, TABS, MAKE, RECIPE, ADDRESS, COLUMNS, LOG, SENTENCES, FREE_VERSE, DIFF]
)
def test_lines_that_were_not_wrapped_stay_lines(text: str) -> None:
    assert read_document(text.encode(), "a.txt", "a.txt").sections[0].text == text


WRAPPED = (
    "The weir was built of oak and stone in the year of the great\n"
    "flood, and the miller of Oldbrook paid for half of it. His sons\n"
    "sold their share to the town, which has kept the weir in good\n"
    "order since then."
)


@pytest.mark.parametrize("other", [POEM, DIALOGUE, CODE, RECIPE, ADDRESS, COLUMNS])
def test_wrapped_paragraph_is_joined_beside_lines_that_are_kept(other: str) -> None:
    text = read_document(f"{WRAPPED}\n\n{other}\n\n{WRAPPED}\n".encode(), "a.txt", "a.txt").sections[0].text
    assert text.split("\n\n") == [WRAPPED.replace("\n", " "), other, WRAPPED.replace("\n", " ")]


def test_narrow_lines_with_broken_words_are_joined() -> None:
    text = "The ferry left the har-\nbour before the fish-\nermen came home.\n"
    assert read_document(text.encode(), "a.txt", "a.txt").sections[0].text == (
        "The ferry left the harbour before the fishermen came home."
    )


@pytest.mark.parametrize("blank", ["", "\n"])
def test_chinese_and_japanese_lines_are_joined_without_a_blank(blank: str) -> None:
    lines = [
        "川のそばに古い水車小屋があり、村の人々は秋になると麦を持って",
        "来ました。粉屋は夜明け前に起きて水門を開け、石臼が回り始めるまで",
        "静かに待っていました。",
    ]
    assert read_document("\n".join(lines).encode(), "a.txt", "a.txt").sections[0].text == "".join(lines)


def test_page_numbers_go_only_where_they_count_the_pages() -> None:
    pages = "The first page.\n\n{}\n\nThe second page.\n\n{}\n\n***\n\nThe end."
    counted = read_document(pages.format("Page 1 of 2", "Page 2 of 2").encode(), "a.txt", "a.txt")
    assert counted.sections[0].text.split("\n\n") == ["The first page.", "The second page.", "The end."]
    assert counted.unused == {"page number": 2, "rule": 1}
    scores = read_document(pages.format("2/3", "1/3").encode(), "a.txt", "a.txt")
    assert "2/3\n\nThe second page.\n\n1/3" in scores.sections[0].text
