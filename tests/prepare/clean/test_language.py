"""Languages: sentences of many are told apart, and a wanted text is hardly ever called foreign."""

from __future__ import annotations

import pytest

from finetune.prepare.clean.language import MIN_LETTERS, is_foreign

SENTENCES = {
    "en": "Rinse the wound with clean water and cover it with a sterile dressing until the bleeding stops.",
    "de": "Spülen Sie die Wunde mit sauberem Wasser und decken Sie sie mit einem sterilen Verband ab.",
    "fr": "Les actions du distributeur ont fortement baissé après l'abaissement de ses prévisions pour l'année.",
    "es": "Las acciones del minorista cayeron con fuerza después de que la empresa redujera su previsión.",
    "it": "L'attività fisica regolare riduce il rischio di malattie cardiache, di ictus e di diabete.",
    "nl": "De aandelen van de winkelketen daalden scherp nadat het bedrijf zijn verwachting verlaagde.",
    "pl": "Pacjentka przyjmowała antybiotyki przez dziesięć dni i wyzdrowiała bez żadnych powikłań.",
    "fi": "Potilas sai antibiootteja kymmenen päivää ja toipui taudistaan ilman mitään komplikaatioita.",
    "tr": "Hasta on gün boyunca antibiyotik aldı ve herhangi bir sorun yaşamadan iyileşti.",
    "ru": "Пациентка десять дней принимала антибиотики и выздоровела без осложнений.",
    "el": "Η ασθενής έλαβε αντιβιοτικά για δέκα ημέρες και ανάρρωσε χωρίς επιπλοκές.",
    "ar": "تلقت المريضة المضادات الحيوية لمدة عشرة أيام وتعافت دون أي مضاعفات تذكر.",
    "hi": "मरीज़ को दस दिनों तक एंटीबायोटिक दी गई और वह बिना किसी जटिलता के ठीक हो गई।",
    "zh": "患者服用抗生素十天，康复过程中没有出现任何并发症，随后出院回家。",
    "ja": "患者は十日間抗生物質を服用し、合併症もなく回復して退院した。",
    "ko": "환자는 열흘 동안 항생제를 복용하고 합병증 없이 회복하여 퇴원했다.",
}
ENGLISH = frozenset({"en"})
# English that looks little like it: tickers, names, Latin terms, capitals, tables, Pidgin-like headlines.
HARD_ENGLISH = [
    "$AAPL $MSFT $TSLA RECAP 12/10 Unusual Puts: $ITCI Jan 6 P $FXB Dec 123 P https://t.co/x1y2z3",
    "SKYCITY Entertainment : NOTICE OF ON-MARKET SHARE BUY BACK #Stock #MarketScreener",
    "Grupo Aval Acciones y Valores S.A. reports Q3 results",
    "Is spondyloepiphyseal dysplasia congenita inherited ?",
    "Staphylococcus aureus, Streptococcus pyogenes, Pseudomonas aeruginosa, Candida albicans, Aspergillus fumigatus",
    "- Eaton Vance Limited Duration Income Fund declares $.10 dividend",
    "Nonfarm Payroll Revisions- October revised to 135K from 189K; September revised to 193K",
    "Musculus sternocleidomastoideus, nervus vagus, arteria carotis communis, vena jugularis interna",
    "Rx: amoxicillin 500 mg p.o. t.i.d. x 5 d; ibuprofen 400 mg p.r.n.; f/u 1 wk",
    "Drug\tDose\nAmoxicillin\t500 mg\nIbuprofen\t400 mg\nMetformin\t850 mg\nRamipril\t5 mg",
]


@pytest.mark.parametrize("wanted", SENTENCES)
def test_wanted_language_is_never_foreign(wanted: str) -> None:
    assert not is_foreign(SENTENCES[wanted], frozenset({wanted}))


@pytest.mark.parametrize("language", [language for language in SENTENCES if language != "en"])
def test_other_languages_are_foreign_to_english(language: str) -> None:
    assert is_foreign(SENTENCES[language], ENGLISH)
    assert is_foreign(SENTENCES["en"], frozenset({language}))
    assert not is_foreign(SENTENCES[language], ENGLISH | {language})


@pytest.mark.parametrize("text", HARD_ENGLISH)
def test_english_that_looks_foreign_is_not(text: str) -> None:
    assert not is_foreign(text, ENGLISH)


def test_short_text_is_not_judged() -> None:
    short = "Resultados del tercer trimestre"
    assert len(short) < MIN_LETTERS
    assert not is_foreign(short, ENGLISH)
    assert not is_foreign("42 %", ENGLISH)
    assert not is_foreign("", ENGLISH)


def test_addresses_and_handles_are_not_judged() -> None:
    assert not is_foreign("https://www.beispiel.example/die/wunde/mit/sauberem/wasser @der_und_die #nicht", ENGLISH)


def test_long_text_that_only_begins_in_another_language_stays() -> None:
    assert is_foreign(SENTENCES["de"] * 10, ENGLISH)
    assert not is_foreign(SENTENCES["de"] * 3 + SENTENCES["en"] * 10, ENGLISH)


def test_near_relatives_are_not_foreign_to_each_other() -> None:
    danish = "Patienten fik antibiotika i ti dage og kom sig derefter fuldstændigt uden komplikationer."
    assert is_foreign(danish, ENGLISH)
    assert not is_foreign(danish, frozenset({"no"}))
