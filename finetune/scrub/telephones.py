"""Telephone numbers: in international form, in the form of a country, and by the words around them."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

from finetune.scrub.recogniser import FIVE_DIGITS, LIKELY, NAMED, NUMBER_HINT, Recogniser, digits_of, is_amount
from finetune.scrub.span import Span

# Country codes of ITU-T E.164.
CALLING_CODES = re.compile(
    r"1|7|2(?:0|7|[1-69]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[058]\d)|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)
PHONE_WORDS = (
    *"phone tel mobile cell fax call dial ring reach contact text sms whatsapp viber gsm answer hotline landline".split(),
    *"voicemail pager mobil handy rufnummer anruf erreich rückfragen téléphone tél portable joindre appelez teléfono".split(),
    *"móvil celular llame llamar cellulare chiama telemóvel ligue bellen bereik puhelin soita zadzwoń dzwoń volejte".split(),
    *"hívj тел звон моб τηλ".split(),
    *("message at", "message on", "rufen sie", "me liga", "bel me"),
)
PHONE_SIGNS = ("☎", "☏", "✆", "📞", "📱", "📠", "电话", "電話", "手机", "手機", "전화", "هاتف", "फ़ोन", "फोन")
# "My number" is one to call; "my account number" is not.
NUMBER_WORDS = ("number", "nummer", "numéro", "número", "numero", "numer", "broj", "číslo")
OWNERS = (
    "my your his her their our new old other home work office direct emergency toll.free wrong right registered current "
    "alternate meine? ihre? deine? unsere? mon votre son notre mi su tu mio suo meu seu mijn uw mitt mit min mój moj můj"
)
WHOSE = rf"(?:{'|'.join(OWNERS.split())}) (?:{'|'.join(NUMBER_WORDS)})s?\b"
PHONE_BEFORE = re.compile(
    rf"(?:\b(?:tele)?(?:{'|'.join(PHONE_WORDS)})\w{{0,12}}|\b{WHOSE})(?: ?\d(?=[:.)]))?[^\d\n]{{0,30}}\n?$"
    rf"|\b(?:the|this|that|which|what|same) (?:{'|'.join(NUMBER_WORDS)}):? ?$"
    rf"|(?:^|[\n|(,;])[ \t]?(?:home|office|work|direct|main):? {{1,2}}$"
    rf"|(?:^|[\s(|])(?:ph[:.]|mob[:.]|[TMPFHOCW][:)])\s?$|(?:^|\n)[ \t]?[TMPFHOCW] $"
    rf"|(?:{'|'.join(PHONE_SIGNS)})\ufe0f?[^\d\n]{{0,6}}$",
    re.I,
)
PHONE_LABELS = "phone|tel|mobile?|cell|fax|office|home|work|direct|landline|voicemail"
PHONE_AFTER = re.compile(
    rf" ?[-–(,/\[] ?(?:{PHONE_LABELS})(?![^\W\d_])|[ \t](?:{PHONE_LABELS})\.?[ \t]*(?:$|[\n,;|])", re.I
)
# A number behind one of these is a quantity, or one that nobody calls.
OTHER_NUMBER = re.compile(
    r"(?:\b(?:code|pages?|pp?|vol|volume|part|model|sku|grant|trial|is[bs]n|pmid|doi|figs?|figures?|tables?|patent|version|score"
    r"|step|room|row|bus|route|flight)\b\.?|[=×≥≤~±]|(?:(?<=\w)|(?<=\w ))[*<]|(?<![\w\"'/])>)\W{0,3}$"
    r"|\b(?:account|acct|routing|order|invoice|case|ticket|claim|policy|reference|serial|member|item|batch|lot)\b\.?"
    r"(?: ?(?:(?:numbers?|nos?|nr|id|ref)\b\.?|[#№]))?(?: (?:is|was) ?|\W{0,3})$",
    re.I,
)
# One of these is in a text where either of them matches.
SIGNS = (
    *(*PHONE_WORDS, *PHONE_SIGNS, *NUMBER_WORDS),
    *("office", "home", "work", "direct", "ph", "mob", "main"),
    *(f"{letter}{sign}" for letter in "tmpfhocw" for sign in (":", ")", " ")),
)
QUANTITY = re.compile(r"\b(?:about|nearly|over|of|between|than)\b\W{0,3}$", re.I)
# A number before one of these is mentioned; before another word, it is one of so many things.
MENTION_AFTER = re.compile(
    r"""\s{0,2}(?:[.,;:!?)\]}"'|/<*_]|[-–—]|\n|\t|$|\d{1,2}(?:[:/]|[ap]m\b)|(?-i:[A-Z][a-z])(?<!\s..)|(?:a|about|after|again|against"""
    r"|all|already|always|am|and|answer(?:s|ed)|any|anymore|are|as|at|back|be|because|been|before|belongs|between|but|by|call(?:s|ed)"
    r"|can|could|do|does|did|down|during|every|fail(?:s|ed)|for|from|had|has|have|he|here|i|if|in|instead|into|is|isn|it|just|keeps?"
    r"|later|may|might|must|never|no|nor|not|now|off|on|once|only|or|out|over|please|rang|rings?|said|says|she|should|since|so|still"
    r"|than|thanks?|that|the|then|there|they|through|till|to|today|tomorrow|tonight|too|under|until|up|via|was|we|were|when|which"
    r"|who|will|with|without|works?|would|yesterday|yet|you)\b)",
    re.I,
)
LIKE_DATE = re.compile(
    r"\d{1,2}([-/.])\d{1,2}\1\d{2,4}|\d{1,2} \d{1,2} (?:19|20)\d\d"
    r"|(?:1[89]|20)\d\d(?:[-/. ]\d{1,2}[-/. ]\d{1,2}|[-/ ]?(?:1[89]|20)\d\d|(?:0[1-9]|1[012])[0-3]\d)"
)
# What stands around a telephone number. No part of a longer number or word is one, but a cell of a table may be one, and a
# time, a date, another number of a list, a house number or the next label may follow.
START = r"(?<![^\W_]|[+$€£-])(?<!\d\.)(?:(?<!\d,)|(?<=\d{4},)|(?=[\d ()./-]{6,20}(?:[,\n]|$)))(?:(?<!/)|(?<=\d{3}/))"
APART = (  # from a number before it: a postal code or a year, which are not its beginning either
    r"(?<!\d\d\) )(?:(?<!\d )|(?<=[A-Z]{2} \d{5} )|(?<=[a-z] (?:19|20)\d\d ))"
    r"(?!(?<=[A-Z]{2} )\d{5} )(?!(?<=[a-z] )(?:19|20)\d\d )"
)
END = r"(?!(?![A-Z][a-z])[^\W_]|\.\d|,\d{3}(?!\d))"
ALONE = (
    r"(?!-|/\d(?!\d*[ -]\d|7\b)"
    r"| \d(?!\d{0,3}(?:[:/-]\d|[ap]\.?m\b|h\b| [A-Z][a-z])|\d?[.)] ))"
)
EXTENSION = r"(?: ?(?:x|ext\.?|extension) ?\d{1,5})?"
# The end of an address, which may have its country below, stands in the line above a telephone number; a mailbox or a site
# stands above it, below it, or in the next cell.
SITE = r"[\w.+-]{1,20}@|www\.|https?:"
CONTACT_BEFORE = re.compile(
    r"(?:\b\d{5}(?:-\d{4})?|\b[A-Z]{1,2}\d[\dA-Z]? \d[A-Z]{2}|\b[A-Z]\d[A-Z] \d[A-Z]\d|@[\w-]{1,40}\.[a-z]{2,9}|www\.\S{3,40}"
    r"|(?:^|\n)\d{4,5} [^\W\d_][^\d\n]{1,30})[ \t]?(?:\n[^\W\d_][^\d\n]{1,24})?\n{1,2}[ \t]{0,4}$"
)
CELL_BEFORE = re.compile(r"(?:^|[\n|,;·•\t–-])[ \t]{0,4}$")
CONTACT_AFTER = re.compile(rf"[ \t]{{0,4}}(?:[|,;·•\t–-]|\n{{1,2}})[ \t]{{0,4}}(?:{SITE})")
PART_OF_DIGITS = re.compile(r"(?:^|[,;\n])[ \t]*(?P<part>\(?\d[\d ()./-]{5,20}\d)[ \t]*(?=[,;\n]|$)")
PART_REASON = "a part of the tagger's address that has digits alone"
# Social security numbers, ZIP codes with four more digits, and tax numbers of employers; they have recognisers of their own.
OTHER_SHAPE = re.compile(r"\d{3}-\d\d-\d{4}|\d{5}-\d{4}|\d\d-\d{7}")


def _digits_before_extension(text: str) -> str:
    return digits_of(re.split(r" ?[ex]", text, maxsplit=1)[0])


def _is_international(text: str, before: str, after: str) -> bool:
    digits = _digits_before_extension(text)
    if not text.startswith(("+", "(+")):  # 00 is dialled before a country code, in North America 011
        digits = digits.removeprefix("00").removeprefix("011")
    code = CALLING_CODES.match(digits)
    if code is None or not 9 <= len(digits) <= 15 or is_amount(before, after):
        return False
    if code[0] in {"1", "7"} and len(digits) != 11:
        return False
    # +200 000 000 is a figure: groups of three that end in zeros.
    return not re.fullmatch(r"\+\d{1,3}(?: \d{3})* 000", text)


def _is_north_american(text: str, before: str, after: str) -> bool:
    is_part = text.count(" ") == 2 and text[0].isdigit() and before[-1:] == " " and before[-2:-1].isdigit()
    return not is_part and not is_amount(before, after)


def _is_named(text: str, before: str, after: str) -> bool:
    if not 6 <= len(digits_of(text)) <= 15 or not (PHONE_BEFORE.search(before) or PHONE_AFTER.match(after)):
        return False
    return not (text.endswith(" 000") or LIKE_DATE.fullmatch(text.strip()) or is_amount(before, after))


def _is_trunk(text: str, before: str, after: str) -> bool:
    return (
        9 <= len(_digits_before_extension(text)) <= 13
        and not LIKE_DATE.fullmatch(text)
        and not is_amount(before, after)
    )


def _is_national(text: str, before: str, after: str) -> bool:
    digits, groups = _digits_before_extension(text), re.findall(r"\d+", text)
    if not 6 <= len(digits) <= 13 or len(set(digits)) < 3 or LIKE_DATE.fullmatch(text) or OTHER_SHAPE.fullmatch(text):
        return False
    mentioned = bool(MENTION_AFTER.match(after)) and not QUANTITY.search(before)
    if "(" not in text and _are_figures(groups, "-" in text, mentioned):
        return False
    return not (OTHER_NUMBER.search(before) or is_amount(before, after))


def _are_figures(groups: Sequence[str], joined: bool, mentioned: bool) -> bool:
    """Whether groups of digits are rather thousands, round figures, a range or a list of figures with equal steps.

    What is `mentioned`, rather than counted, may have groups of three digits, as in half a dozen countries, or none. (Of
    60,372 texts of news and medicine, 34 mention 8 to 11 digits in one: 30 telephone numbers, 4 pairs of years.)
    """
    if len(groups) == 1:
        return not mentioned or groups[0].endswith("00")
    values = [int(group) for group in groups]
    steps = {after - before for before, after in pairwise(values)}
    nearest = values[0] // 10 if len(groups[0]) == len(groups[-1]) else values[0]
    is_range = joined and len(groups) == 2 and 0 < min(steps) < nearest
    is_list = len(groups) > 2 and len(steps) == 1
    are_threes = not joined and len(groups[0]) <= 3 and groups[0][0] != "0" and {*map(len, groups[1:])} == {3}
    is_round = groups[-1].endswith("00")
    are_thousands = are_threes and (is_round or not mentioned or len(groups) != 3 or len(groups[0]) == 1)
    is_short = sum(map(len, groups)) == 6 and not (mentioned and [*map(len, groups)] == [2, 2, 2])
    return is_range or is_list or are_thousands or is_short or all(group.endswith("0") for group in groups)


def _in_contact_block(text: str, before: str, after: str) -> bool:
    ends_line = not after.strip(" \t") or after.lstrip(" \t").startswith("\n")
    is_contact = (ends_line and CONTACT_BEFORE.search(before)) or (
        CELL_BEFORE.search(before) and CONTACT_AFTER.match(after)
    )
    return bool(is_contact) and 6 <= len(digits_of(text)) <= 12 and not LIKE_DATE.fullmatch(text)


def telephones_in(address: Span, text: str) -> Iterator[Span]:
    """The telephone numbers in what a tagger took for an address: parts between commas or lines, of 7 to 12 digits alone."""
    for match in PART_OF_DIGITS.finditer(text, address.start, address.end):
        part = match["part"]
        if 7 <= len(digits_of(part)) <= 12 and not LIKE_DATE.fullmatch(part) and not OTHER_SHAPE.fullmatch(part):
            yield Span("PHONE", match.start("part"), match.end("part"), LIKELY, address.recogniser, PART_REASON)


# What must not stand before is asked after the first character, so that the search can skip to such characters.
TELEPHONES = (
    Recogniser(
        "phone-international",
        "PHONE",
        re.compile(
            r"(?<![^\W_]|\+)(?:\+\d{1,3}|\(\+\d{1,3}\)|\+\(\d{1,3}\))(?:(?:[ .-]|/(?!0))?(?:\(\d{1,5}\)|\d{1,5})){2,7}"
            + EXTENSION
            + END
        ),
        "a plus, a country code and 9 to 15 digits",
        check=_is_international,
        signs=("+",),
        hint=NUMBER_HINT,
    ),
    Recogniser(
        "phone-dialled-abroad",
        "PHONE",
        re.compile(START + r"(?:00[ .-]?|011[ .-])[1-9]\d{0,3}(?: ?\(0\))?(?:[ .\-/]?\d{1,5}){2,6}" + EXTENSION + END),
        "00 or 011, a country code and 9 to 15 digits",
        score=LIKELY,
        check=_is_international,
        broad=True,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-north-american",
        "PHONE",
        re.compile(
            START
            + r"(?:(?:(?:00)?1|8)[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}"
            + EXTENSION
            + r"(?!-\d)"
            + END
        ),
        "area code, exchange and line of the North American plan",
        check=_is_north_american,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-by-words",
        "PHONE",
        re.compile(rf"(?:{START}|(?<=(?i:tel|fax)))" + r"[(+]?\d[\d ()./-]{4,20}\d" + EXTENSION + END),
        "6 to 15 digits beside a word such as phone, fax or call",
        score=NAMED,
        check=_is_named,
        signs=SIGNS,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-trunk-zero",
        "PHONE",
        re.compile(
            START + r"(?:\(?0\d{1,5}\)?[ /.-]{1,3}\d{2,8}(?:[ .-]\d{2,4}){0,4}|0[1-9]\d{8,9})" + EXTENSION + END
        ),
        "9 to 13 digits in groups or 10 or 11 in one, the first a zero",
        score=LIKELY,
        check=_is_trunk,
        broad=True,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-national",
        "PHONE",
        re.compile(
            START + APART + r"(?:(?:\(?\d{2}\)?-?)?\(?\d{1,2}\)?/\d{3}[ -]\d{4}|\d{3}\.\d{3}\.\d{4}"
            r"|(?:\d )?\(\d{1,5}(?:[- ]\d{1,3})?\)[ -]?\d{2,9}(?:[ -]\d{2,5}){0,3}"
            r"|\d{8,11}|\d{1,5}(?:[ -](?!\d{4}-\d\d-\d\d)\d{2,7}){1,4})" + EXTENSION + END + ALONE
        ),
        "6 to 13 digits as countries write telephone numbers",
        score=LIKELY,
        check=_is_national,
        broad=True,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-in-contact-block",
        "PHONE",
        re.compile(START + r"\(?\d[\d ()./-]{4,20}\d" + END),
        "6 to 12 digits in a line below an address, or beside a mailbox or a site",
        score=LIKELY,
        check=_in_contact_block,
        broad=True,
        hint=FIVE_DIGITS,
    ),
)
