"""Encodings found from the first bytes of a text."""

from __future__ import annotations

import codecs
import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import InputError
from finetune.prepare.formats.encoding import decode, detect_encoding

ENGLISH = "The patient’s fever was 39.5 °C — above what is usual.\n" * 20
PLAIN = "A leaflet about fevers, for patients.\nIt has two lines.\n"


@pytest.mark.parametrize(
    ("mark", "codec"),
    [
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
def test_byte_order_mark_tells_and_is_not_text(mark: bytes, codec: str) -> None:
    assert decode(mark + ENGLISH.encode(codec), "a.txt") == ENGLISH


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_a_mark_is_found(codec: str) -> None:
    assert detect_encoding(ENGLISH.encode(codec)) == codec
    assert detect_encoding(PLAIN.encode(codec)[:-1]) == codec


@pytest.mark.parametrize("text", [ENGLISH, "Лихорадка и кашель.\n", "发烧和咳嗽。\n", "発熱とせき 😀\n"])
def test_utf8_cut_within_a_letter_is_utf8(text: str) -> None:
    data = text.encode()
    assert {detect_encoding(data[:length]) for length in range(1, len(data))} == {"utf-8"}


def test_quotes_of_windows_are_read() -> None:
    assert decode(ENGLISH.encode("cp1252"), "a.txt") == ENGLISH


def test_few_accents_are_latin() -> None:
    text = "Guillain-Barré syndrome is rare. Water boils at 100 °C.\n" * 5
    assert decode(text.encode("latin-1"), "a.txt") == text


@pytest.mark.parametrize("codec", ["latin-1", "cp1252"])
def test_french_is_read(codec: str) -> None:
    text = "La fièvre élevée dure généralement trois à quatre journées à l'hôpital, où l'on a été très aidé.\n" * 10
    assert decode(text.encode(codec), "a.txt") == text


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("cp1251", "Лечение заболевания обычно проводится лекарствами, которые назначает врач, и длится долго. " * 10),
        ("koi8_r", "Лечение заболевания обычно проводится лекарствами, которые назначает врач, и длится долго. " * 10),
        (
            "cp1250",
            "Leczenie choroby zwykle polega na podawaniu leków, które może przepisać tylko lekarz, a trwa długo, " * 10,
        ),
        ("shift_jis", "この病気の治療は、通常、医師が処方する薬で行われ、数週間続きます。" * 10),
        ("gb18030", "治疗这种疾病通常需要服用医生开的药，持续几周。病人应该多喝水，多休息。" * 10),
    ],
)
def test_other_scripts_are_told_apart(codec: str, text: str) -> None:
    assert decode(text.encode(codec), "a.txt") == text


@pytest.mark.parametrize(
    "data",
    [
        b'{"text": "a\0b"}\n' * 30,
        bytes(5000),
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)) * 20,
        b"\xff\xd8\xff\xe1" + bytes(range(1, 32)) * 30,
    ],
)
def test_binary_data_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match=r"^a\.txt is a binary file"):
        decode(data, "a.txt")


def test_message_holds_none_of_the_text() -> None:
    with pytest.raises(InputError) as caught:
        decode(b"secret\0" * 9, "a.txt")
    assert "secret" not in str(caught.value)


def test_empty_text_is_utf8() -> None:
    assert detect_encoding(b"") == "utf-8"


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff")))
def test_any_utf8_text_comes_back(text: str) -> None:
    assert decode(text.encode(), "a.txt") == text


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0\ufeff"), min_size=1))
def test_any_marked_utf16_text_comes_back(text: str) -> None:
    assert decode(codecs.BOM_UTF16_LE + text.encode("utf-16-le"), "a.txt") == text


@given(st.binary(max_size=2000))
def test_any_bytes_are_text_or_refused(data: bytes) -> None:
    with contextlib.suppress(InputError):
        assert isinstance(decode(data, "a.txt"), str)
