"""Encodings found from the first bytes of a text."""

from __future__ import annotations

import codecs
import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from finetune.errors import ConfigError, InputError
from finetune.prepare.documents.readers import read_document
from finetune.prepare.formats.encoding import decode, detect_encoding

from ..conftest import Preparer

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


CODE_PAGES: dict[str, tuple[str, ...]] = {
    "de: cp1252 latin_1 mac_roman cp850": (
        "Der Kessel kocht das Wasser schön schnell.",
        "Die Tür klemmt, und der Schlüssel paßt nicht.",
        "Später gingen wir über die Brücke zum Hafen.",
    ),
    "fr: cp1252 latin_1 iso8859_15 mac_roman": (
        "La bouilloire chauffe très vite et reste légère.",
        "Le couvercle s'est cassé dès le premier été.",
        "Où est passée la clé de la forêt ?",
    ),
    "es: cp1252 latin_1": (
        "El niño perdió la llave mañana por la tarde.",
        "La cocción es rápida y también silenciosa.",
        "¿Dónde está el señor del jardín?",
    ),
    "pt: cp1252": (
        "A chaleira é rápida e não faz barulho.",
        "A estação fica além da ponte, à direita.",
        "Os cães não são maus, são só medrosos.",
    ),
    "sv: cp1252 latin_1": (
        "Båten går över sjön på lördag kväll.",
        "Nyckeln låg under mattan i köket.",
        "Två små hästar står på ängen.",
    ),
    "da: cp1252": (
        "Nøglen lå på bordet i køkkenet.",
        "Båden sejler over søen på lørdag.",
        "Der er få æbler på træet.",
    ),
    "is: cp1252": (
        "Það er kalt á fjallinu í dag.",
        "Hún þvoði bátinn með sápu.",
        "Við förum ekki út í óveðrið.",
    ),
    "it: cp1252": (
        "La caffettiera è già calda, però perde.",
        "Perché la città è così buia?",
        "Il gatto salì più su.",
    ),
    "pl: cp1250 iso8859_2": (
        "Łódź płynie przez jezioro w sobotę.",
        "Klucz leży pod wycieraczką, może go weź.",
        "Zażółcić gęślą jaźń było trudno.",
    ),
    "cs: cp1250 iso8859_2": (
        "Člun pluje přes jezero každou sobotu.",
        "Klíč leží pod rohožkou u dveří.",
        "Čajník vaří vodu velmi rychle a tiše.",
    ),
    "sk: cp1250 iso8859_2": (
        "Loď pláva cez jazero každú sobotu.",
        "Kľúč leží pod rohožkou pri dverách.",
        "Čajník varí vodu veľmi rýchlo.",
    ),
    "hu: cp1250 iso8859_2": (
        "A hajó szombaton átmegy a tavon.",
        "A kulcs a lábtörlő alatt van, őrizd meg.",
        "A vízforraló nagyon gyors, de zajos, űr van benne.",
    ),
    "ro: cp1250 iso8859_2": (
        "Cheia este sub preşul din faţa uşii.",
        "Barca trece peste lac în fiecare sâmbătă.",
        "Fierbătorul încălzeşte apa foarte repede.",
    ),
    "hr: cp1250": (
        "Brod plovi preko jezera svake subote.",
        "Ključ leži ispod otirača, čuvaj ga.",
        "Kuhalo za vodu vrlo brzo zagrije čaj, žao mi je.",
    ),
    "sl: cp1250": (
        "Ladja pluje čez jezero vsako soboto.",
        "Ključ leži pod predpražnikom.",
        "Kuhalnik zelo hitro segreje vodo za čaj, žal pušča.",
    ),
    "tr: cp1254 iso8859_9": (
        "Çaydanlık suyu çok hızlı ısıtıyor.",
        "Anahtar kapının önündeki paspasın altında.",
        "Her cumartesi gölün üzerinden gemi geçiyor, ışıklar yanıyor.",
    ),
    "el: cp1253 iso8859_7": (
        "Το πλοίο περνά τη λίμνη κάθε Σάββατο.",
        "Το κλειδί είναι κάτω από το χαλί.",
        "Ο βραστήρας ζεσταίνει γρήγορα το νερό.",
    ),
    "ru: cp1251 koi8_r iso8859_5 mac_cyrillic cp866": (
        "Лодка плывёт через озеро каждую субботу.",
        "Ключ лежит под ковриком у двери.",
        "Чайник быстро кипятит воду, но шумит.",
    ),
    "uk: cp1251 koi8_u": (
        "Човен пливе через озеро щосуботи.",
        "Ключ лежить під килимком біля дверей.",
        "Чайник швидко кип'ятить воду, її багато.",
    ),
    "bg: cp1251": (
        "Лодката минава през езерото всяка събота.",
        "Ключът е под изтривалката пред вратата.",
        "Чайникът загрява водата много бързо.",
    ),
    "lt: cp1257": (
        "Laivas plaukia per ežerą kiekvieną šeštadienį.",
        "Raktas guli po kilimėliu prie durų.",
        "Virdulys labai greitai užvirina vandenį, jį mėgstu.",
    ),
    "lv: cp1257": (
        "Laiva brauc pāri ezeram katru sestdienu.",
        "Atslēga atrodas zem paklājiņa pie durvīm.",
        "Tējkanna ļoti ātri uzsilda ūdeni.",
    ),
    "et: cp1257": (
        "Paat sõidab üle järve igal laupäeval.",
        "Võti on ukse ees mati all.",
        "Veekeetja soojendab vett väga kiiresti, šokolaad sulab.",
    ),
    "he: cp1255 iso8859_8": (
        "הסירה חוצה את האגם בכל שבת.",
        "המפתח נמצא מתחת לשטיח.",
        "הקומקום מחמם את המים מהר מאוד.",
    ),
    "ar: cp1256 iso8859_6": (
        "يعبر القارب البحيرة كل يوم سبت.",
        "المفتاح تحت السجادة عند الباب.",
        "الغلاية تسخن الماء بسرعة كبيرة.",
    ),
    "th: cp874 tis_620": (
        "เรือข้ามทะเลสาบทุกวันเสาร์",
        "กุญแจอยู่ใต้พรมหน้าประตู",
        "กาต้มน้ำทำให้น้ำร้อนเร็วมาก",
    ),
    "ja: cp932 shift_jis euc_jp iso2022_jp": (
        "船は毎週土曜日に湖を渡ります。",
        "鍵は玄関のマットの下にあります。",
        "やかんはとても速くお湯を沸かします。",
    ),
    "zh: big5": (
        "船每星期六過湖。",
        "鑰匙在門前的墊子下面。",
        "水壺燒水很快，但是聲音大。",
    ),
    "ko: cp949 euc_kr": (
        "배는 토요일마다 호수를 건넙니다.",
        "열쇠는 문 앞 매트 아래에 있습니다.",
        "주전자는 물을 아주 빨리 끓입니다.",
    ),
    "en: cp1252 mac_roman latin_1": (
        "The keeper’s lamp – an old one – went out.",
        "She said “no” and closed the café door.",
        "Water boils at 100 °C, not at 90 °C.",
    ),
    "zh-hans: gb18030 gbk gb2312": (
        "船每星期六过湖。",
        "钥匙在门前的垫子下面。",
        "水壶烧水很快，但是声音大。",
    ),
}


@pytest.mark.parametrize(("lines", "codec"), [(ls, c) for key, ls in CODE_PAGES.items() for c in key.split()[1:]])
@pytest.mark.parametrize("form", ["text", "table", "long"])
def test_three_lines_tell_the_code_page(form: str, lines: tuple[str, ...], codec: str) -> None:
    table = "text,label\n" + "".join(f"{line.replace(',', ';')},good\n" for line in lines)
    text = {"text": "\n".join(lines), "table": table, "long": ("\n".join(lines) + "\n") * 100}[form]
    data = text.encode(codec, "ignore")  # a sign that the code page lacks
    assert decode(data, "a.txt") == data.decode(codec)


def test_names_of_many_languages_are_western() -> None:
    text = "Åsa, José, François, Jürgen, Bjørn, João, Zoë and Núria met at the café in Malmö.\n"
    assert decode(text.encode("cp1252"), "a.txt") == text


def test_letters_that_come_late_are_read() -> None:
    text = "A plain line of the log.\n" * 10_000 + "Klíč leží pod rohožkou u dveří.\n"
    assert decode(text.encode("cp1250"), "a.txt") == text


@pytest.mark.parametrize("text", ["Старая лодка у причала. " * 9, "Où est passée la clé ? ", "湖を渡る船。" * 9])
def test_a_damaged_letter_does_not_change_the_others(text: str) -> None:
    data = text.encode() + b"\xe2 " + text.encode()
    assert decode(data, "a.txt") == f"{text}\ufffd {text}"
    assert read_document(data, "a.txt", "a.txt").unused == {"undecodable letter": 1}


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


CZECH = ("Klíč leží pod rohožkou u dveří, kde vždycky ležel.", "Čajník vaří vodu velmi rychle a přitom skoro potichu.")


def test_what_was_decoded_is_told(prepared: Preparer, tmp_path: Path) -> None:
    folder = tmp_path / "yard"
    folder.mkdir()
    (folder / "a.csv").write_bytes(f"question,answer\nKde je?,{CZECH[0].replace(',', ';')}\n".encode("cp1250"))
    (folder / "b.txt").write_bytes(CZECH[1].encode("cp1250"))
    (folder / "c.txt").write_text("A plain leaflet about the kettle and its lid.", "utf-8")
    result = prepared(folder)
    assert [source.encodings for source in result.result.sources] == [{"cp1250": 2}]
    assert "yard: 2 files as cp1250" in (result.corpus.path / "README.md").read_text("utf-8")
    assert CZECH[1] in result.texts


@pytest.mark.parametrize("name", ["r.csv", "r.txt", "r.html"])
def test_the_encoding_can_be_given(name: str, prepared: Preparer, tmp_path: Path) -> None:
    head, tail = {"r.csv": ('text\n"', '"\n'), "r.txt": ("", ""), "r.html": ("<p>", "</p>")}[name]
    (tmp_path / name).write_bytes(f"{head}{CZECH[0]}{tail}".encode("cp852"))
    result = prepared(tmp_path / name, encoding="CP852")
    assert result.texts == [CZECH[0]]
    assert result.result.sources[0].encodings == {"cp852": 1}


def test_an_encoding_that_does_not_exist_is_refused(prepared: Preparer, tmp_path: Path) -> None:
    (tmp_path / "r.txt").write_text(CZECH[0], "utf-8")
    for name in ("cp9999", "rot13", "base64"):
        with pytest.raises(ConfigError, match=f"--encoding {name}: there is no such encoding"):
            prepared(tmp_path / "r.txt", encoding=name)
