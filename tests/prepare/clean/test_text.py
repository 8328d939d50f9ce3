"""Clean text: rightly decoded, composed, without invisible characters, the same after a second pass."""

from __future__ import annotations

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune.prepare.clean.text import Changes, clean_lightly, clean_text

GOLDEN = sorted((Path(__file__).parent / "golden" / "clean").glob("*.json"))
# What repairs act on, so that random texts meet them and one another.
AWKWARD = [
    *"Ãâ€™Â© Å“ðŸ\u00a0\u00ad\u200b\u200d\u200c\ufeff\u202e\u2028\x85\x93\x1b\r\n\t  &;<[ﬁＡ１\u3000\uf0b7\ufffdé",
    "&amp;",
    "&lt;",
    "&nbsp;",
    "&#8203;",
    "\x1b[0m",
    "\U0001f3f4",
    "\U000e0067",
    "\U000e007f",
    "\n\n\n",
    "\n  ",
    "|",
    "`",
    "```",
]
WESTERN = """Äpfel für Straße Größe „süß“ Spaß” weiß… ÄRZTE Maß– à l’été… « élève » ça ÇA ÉTÉ É. où? señor ¿Qué? ¡No! Ångström
    Å øre Ærø œuvre naïve 5 °C ±3 µg/mL ≥65 £3 €5 ½ 10³ α-Hämolyse Łódź žena Čeština ığdır Žižek’s“ Ю.А. Она Έλα”"""


@pytest.mark.parametrize("file", GOLDEN, ids=lambda path: path.stem)
def test_dirty_text_becomes_what_the_golden_file_says(file: Path) -> None:
    golden = json.loads(file.read_text("utf-8"))
    assert clean_text(golden["dirty"]) == golden["clean"]


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("cafe\u0301", "café"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("a  \t\nb \n", "a\nb"),
        ("\ufeffnul\x00 bell\x07 esc\x1b", "nul bell esc"),
        ("tab\tand\n\nblank line", "tab\tand\n\nblank line"),
        ("  indented\n    code", "  indented\n    code"),
        ("   a single line", "a single line"),
        ("family 👨\u200d👩\u200d👧", "family 👨\u200d👩\u200d👧"),
        ("5\u00a0% \u2013 6\u202f%", "5 % \u2013 6 %"),
    ],
)
def test_cleaning(dirty: str, clean: str) -> None:
    assert clean_text(dirty) == clean


@given(
    st.one_of(
        st.text(st.characters(exclude_categories=["Cs"])),
        st.lists(st.sampled_from(AWKWARD), max_size=24).map("".join),
    )
)
@example("Ã\u00ad")  # í, whose second byte looks like a soft hyphen
@example("&am&shy;p;")  # an entity inside an entity
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean_text(text)
    assert clean_text(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert not any(unicodedata.category(char) == "Cc" and char not in "\n\t" for char in once)


@given(st.lists(st.sampled_from(AWKWARD), max_size=24).map("".join))
def test_cleaning_lightly_twice_changes_nothing_more(text: str) -> None:
    once = clean_lightly(text)
    assert clean_lightly(once) == once


@pytest.mark.parametrize(
    "text",
    [
        "<b>boat</b> &lt; &amp;amp; ﬁ Ａ\u00a0\u200bâ€™",
        'text.replace("  ", " ")\n\n\n\n\n\nx  \n y',
        "    return 2 * x\n",
        "\tindented",
        "+----+    +----+\n| A  |--->| B  |",
    ],
)
def test_light_cleaning_keeps_the_characters(text: str) -> None:
    assert clean_lightly(text) == text


@pytest.mark.parametrize(
    ("dirty", "light"),
    [
        ("cafe\u0301\r\nand\rtea", "café\nand\ntea"),
        ("\x1b[31mred\x1b[0m bell\x07", "red bell"),
        (" Oslo. ", "Oslo."),
        ("\n \n\nOslo.\n\n \n", "Oslo.\n"),
        ("\n    return 1  ", "    return 1"),
        ("it\x92s", "it’s"),
        ("â€\x9c, half of mojibake", "â€\x9c, half of mojibake"),
    ],
)
def test_light_cleaning(dirty: str, light: str) -> None:
    assert clean_lightly(dirty) == light


@pytest.mark.parametrize(
    ("text", "kinds"),
    [
        ("plain", set()),
        ("R&amp;D  is", {"entities decoded", "blanks removed"}),
        ("CafÃ©\u200b", {"mojibake repaired", "invisible characters removed"}),
        ("\x1b[31mred\x1b[0m", {"control characters removed"}),
        ("a\r\n\x07b \ufb01", {"line ends unified", "control characters removed", "Unicode normalised"}),
    ],
)
def test_the_kinds_of_changes_are_told(text: str, kinds: set[str]) -> None:
    changes: Changes = set()
    clean_text(text, changes)
    assert changes == kinds


@given(st.lists(st.sampled_from(WESTERN.split()), min_size=1).map(" ".join))
def test_clean_western_text_stays_as_it_is(text: str) -> None:
    assert clean_text(text) == text


@pytest.mark.parametrize("encoding", ["latin-1", "cp1252", "cp1250", "cp1251", "cp1254", "mac-roman", "cp437"])
def test_text_read_in_the_wrong_encoding_is_mended(encoding: str) -> None:
    text = "Müller – café, it’s 5 µg, “très” naïf"
    wrong = text.encode().replace("”".encode(), b"''").decode(encoding)  # its last byte has no meaning in Windows-1252
    assert wrong != text
    assert clean_text(wrong) == text.replace("”", "''")


def test_half_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(UnicodeEncodeError):
        clean_text("a\ud800b")


def test_long_runs_of_blanks_take_no_quadratic_time() -> None:
    assert clean_text("a" + " " * 300_000 + "b\n" + " \t" * 150_000 + "c") == "a b\n" + " \t" * 150_000 + "c"
