"""Guesses the code page of a text that is not Unicode, by the letters that languages write.

No language writes both "ì" and "ø", so a text that seems to have both in Windows-1252 is Czech in Windows-1250. From three
lines each, this finds 62 of 64 pairs of language and code page (tests/prepare/formats/test_encoding.py lists them);
charset-normalizer with preferences between its answers found 42: it takes short Turkish, Czech or Baltic texts for
Windows-1252.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise

WESTERN = (
    "äöüß",  # German
    "àâçèéêëîïôœùûüÿæ",  # French
    "áéíñóúüªº¡¿",  # Spanish
    "ãáàâçéêíõóôúüªº",  # Portuguese
    "åäöéæøèóà",  # Swedish, Danish, Norwegian, Finnish
    "áðéíóúýþæö",  # Icelandic
    "àèéìíîòóùú",  # Italian
    "áèéëêïíîóöúüàâ",  # Dutch
    "àçèéíïòóúü·",  # Catalan
)
CENTRAL = ("ąćęłńóśźż", "áčďéěíňóřšťúůýž", "áäčďéíľĺňóôŕšťúýž", "áéíóöőúüű", "ăâîşţ", "čćđšž")  # Polish to Croatian
TURKISH = ("çğıöşüâîiİ",)
BALTIC = ("ąčęėįšųūž", "āčēģīķļņšūž", "äõöüšž")
LATIN = {
    "cp1252": WESTERN,
    "cp1250": CENTRAL,
    "iso8859_2": CENTRAL,
    "cp1254": TURKISH,
    "cp1257": BALTIC,
    "iso8859_15": WESTERN,
    "mac_roman": WESTERN,
    "cp850": WESTERN,
}
# The most frequent letters of languages in other scripts: more than a third of a text.
CYRILLIC = ("оеаинтслвркдмпу", "оаинвтеірсклудм")
KANA = "のにはをたがでとしるてすまいあり、。くれもなかっ"
HAN = "的一是不了在有人我他中大上到子和你地出也，。要就可以下天年生家作自那前面水很但月日用方成行"
EAST_ASIA = 2  # the weight of a frequent letter among thousands
OTHER = {
    "cp1251": CYRILLIC,
    "koi8_u": CYRILLIC,  # has the letters of KOI8-R
    "iso8859_5": CYRILLIC,
    "mac_cyrillic": CYRILLIC,
    "cp866": CYRILLIC,
    "cp1253": ("αοιετσνηυρπκμλςά",),
    "iso8859_7": ("αοιετσνηυρπκμλςά",),
    "cp1255": ("יוהלאתרמבשנ",),
    "cp1256": ("اليمونرتبةعدس",),
    "iso8859_6": ("اليمونرتبةعدس",),
    "cp874": ("านรอกเงมยลวด่้ัีทสต",),
    "cp932": (KANA,),
    "euc_jis_2004": (KANA,),
    "gb18030": (f"{HAN}这来个国说们为会时过后里发学",),
    "big5": (f"{HAN}這來個國說們為會時過後裡發學",),
    "cp949": ("다이는을의에가고하지은한를로도서사자기니아어나리시",),
}
SIGNS = "“”‘’‚„–—…•€°§«»£©®™²³¹½¼¾·×÷±¿¡´¨\xa0\xad"
# What no text has: a sign within or at the beginning of a word, or a capital after a small letter.
SIGN_IN_WORD = re.compile(r"(?:(?<=[^\W\d_])[^\w\s!-~’‘\xad·–—]|[¹²³¼½¾¨´±])(?=[^\W\d_])")
UNION = 0.9  # of the score of one language: a text may quote others
MARGIN = 0.04  # by which a code page must be better than Windows-1252
TYPICAL = 0.25  # of the letters: fewer frequent ones are chance
RUN = re.compile(rb"[\x80-\xff]{3,}")
RUNS = 0.3  # of the bytes beyond ASCII: Latin letters stand alone or in pairs, those of other scripts in words
# The meaning of an undefined byte of Windows-1252: such a text is Latin-1, where the byte is a (rare) control.
UNDEFINED_1252 = frozenset(b"\x81\x8d\x8f\x90\x9d")


def guess_code_page(sample: bytes) -> str:
    """The Python codec of a text with bytes beyond ASCII that is not Unicode; Windows-1252 if nothing else fits better."""
    high = [byte for byte in sample if byte >= 0x80]
    if sum(map(len, RUN.findall(sample))) >= RUNS * len(high):
        scores = {
            name: _frequent(_decode(sample, name), languages) * (EAST_ASIA if languages[0] > "\u2fff" else 1)
            for name, languages in OTHER.items()
        }
        best = max(scores, key=lambda name: scores[name])
        if scores[best] > TYPICAL:
            return best
    scores = {name: _fit(_decode(sample, name), languages) for name, languages in LATIN.items()}
    best = max(scores, key=lambda name: scores[name])
    if scores[best] > scores["cp1252"] + MARGIN:
        return best
    return "latin-1" if UNDEFINED_1252.intersection(high) else "cp1252"


def _decode(sample: bytes, name: str) -> str:
    return sample.decode(name, "replace")


def _frequent(text: str, languages: Iterable[str]) -> float:
    """The share of frequent letters among those beyond ASCII; letters that cannot be decoded count against it."""
    letters = [letter for letter in text if letter >= "\x80"]
    best = max(sum(letter in language for letter in letters) for language in languages)
    return (best - 2 * text.count("\ufffd") - _oddities(text)) / max(len(letters), 1)


def _fit(text: str, languages: Iterable[str]) -> float:
    """The share of letters of one language among the characters beyond ASCII."""
    letters = [letter for letter in text if letter >= "\x80"]
    best = 0.0
    for language, weight in [*((language, 1.0) for language in languages), ("".join(languages), UNION)]:
        known = {*language, *language.upper()}
        best = max(best, weight * sum(letter in known for letter in letters))
    signs = sum(letter in SIGNS for letter in letters)
    return (best + signs - _oddities(text)) / max(len(letters), 1)


def _oddities(text: str) -> int:
    capitals = sum(b >= "\x80" and a.islower() and b.isupper() for a, b in pairwise(text))
    return len(SIGN_IN_WORD.findall(text)) + capitals
