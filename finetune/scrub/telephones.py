"""Telephone numbers: in international form, in the form of a country, and by the words around them."""

from __future__ import annotations

import re

from finetune.scrub.recogniser import FIVE_DIGITS, LIKELY, NAMED, NUMBER_HINT, Recogniser, digits_of, is_amount

# Country codes of ITU-T E.164.
CALLING_CODES = re.compile(
    r"1|7|2(?:0|7|[1-69]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[058]\d)|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)
PHONE_WORDS = (
    *("phone", "tel", "mobile", "cell", "fax", "call", "dial", "ring", "reach", "contact", "text", "sms", "whatsapp"),
    *("answer", "hotline", "landline", "voicemail", "pager", "mobil", "handy", "rufnummer", "téléphone", "teléfono"),
    *("móvil", "celular", "cellulare", "portable", "puhelin", "gsm", "message at", "message on"),
)
# "My number" is one to call; "my account number" is not.
WHOSE = r"(?:my|your|his|her|their|our|new|old|home|work|office|direct|emergency|toll[- ]free) numbers?\b"
PHONE_BEFORE = re.compile(
    rf"(?:\b(?:tele)?(?:{'|'.join(PHONE_WORDS)})\w{{0,12}}|\b{WHOSE})[^\d\n]{{0,30}}\n?$"
    r"|(?:^|[\s(|])(?:ph[:.]|mob[:.]|[TMPFH]:)\s?$|[☎☏✆📞📱📠]\ufe0f?\s?$",
    re.I,
)
PHONE_AFTER = re.compile(
    r" ?[-–(,/\[] ?(?:phone|tel|mobile?|cell|fax|office|home|work|direct|landline|voicemail)(?![^\W\d_])", re.I
)
# A number behind one of these is a quantity, or one that nobody calls.
OTHER_NUMBER = re.compile(
    r"(?:\b(?:no|nrs?|nos|numbers?|id|ref|reference|code|order|invoice|case|ticket|claim|policy|account|acct|pages?|pp?|vol|volume"
    r"|part|item|model|sku|batch|lot|grant|trial|is[bs]n|pmid|doi|figs?|figures?|tables?|patent|between|from|to|and|than"
    r"|about|nearly|over|of|version|score|step|room|row|bus|route|flight)\b\.?|[#№=×*<>≥≤~±])\W{0,3}$",
    re.I,
)
# One of these is in a text where either of them matches.
SIGNS = (
    *PHONE_WORDS,
    "number",
    "office",
    "home",
    "work",
    "direct",
    "ph",
    "mob",
    "t:",
    "m:",
    "p:",
    "f:",
    "h:",
    *"☎☏✆📞📱📠",
)
LIKE_DATE = re.compile(
    r"\d{1,2}([-/.])\d{1,2}\1\d{2,4}|(?:1[89]|20)\d\d(?:[-/.]\d{1,2}[-/.]\d{1,2}|[-/ ](?:1[89]|20)\d\d)"
)
EXTENSION = r"(?: ?(?:x|ext\.?|extension) ?\d{1,5})?"
# How numbers are written inside a country without its trunk prefix (a 9 is any digit), and what they begin with:
# the national numbering plans that E.164 lists. A form of groups of thousands is not here, as figures have it too.
NATIONAL_FORMS = {
    "999 9999": r"[3-9]",  # Iceland, Estonia; local numbers of North America
    "9999 9999": r"[2-9]",  # Singapore, Hong Kong, Costa Rica; local numbers of Australia and Brazil
    "99 99 99 99": r"[2-9]",  # Denmark, Norway, Luxembourg
    "99-99-99-99": r"[2-9]",
    "999 99 999": r"[489]",  # Norway
    "99 999999": r"[29]",  # Cyprus
    "99 999 99 99": r"[1-9]",  # Poland, Belgium, Switzerland
    "999 99 99 99": r"[6-9]",  # Spain
    "9999 999 999": r"1[38]00",  # Australia
    "99 9999 9999": r"[1-9]",  # Mexico, India
    "999 9999 9999": r"1[3-9]",  # China
    "99999 99999": r"[6-9]",  # India
    "99999-99999": r"[6-9]",
    "999-99-99": r"[2-9]",  # local numbers of Russia
    "(9) 999-9999": r"[1-9]",  # Hungary
    "(9) 9999 9999": r"[2378]",  # Australia
    "(99) 999-999": r"[1-9]",  # Hungary
    "(99) 999-9999": r"[1-9]",
    "(99) 9999-9999": r"[1-9]",  # Brazil
    "(99) 99999-9999": r"[1-9]",
    "(999) 999-999": r"[1-9]",
    "(999) 999-99-99": r"[3-9]",  # Russia
    "9 (999) 999-99-99": r"8",
    "(999) 9999-9999": r"[1-9]",
}


def _is_international(text: str, before: str, after: str) -> bool:
    digits = digits_of(re.split(r" ?[ex]", text, maxsplit=1)[0])
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
    return not is_amount(before, after)


def _is_named(text: str, before: str, after: str) -> bool:
    if not 6 <= len(digits_of(text)) <= 15 or not (PHONE_BEFORE.search(before) or PHONE_AFTER.match(after)):
        return False
    return not (text.endswith(" 000") or LIKE_DATE.fullmatch(text.strip()) or is_amount(before, after))


def _is_trunk(text: str, before: str, after: str) -> bool:
    return 9 <= len(digits_of(text)) <= 12 and not LIKE_DATE.fullmatch(text) and not is_amount(before, after)


def _is_national(text: str, before: str, after: str) -> bool:
    first = NATIONAL_FORMS.get(re.sub(r"\d", "9", text).replace(")9", ") 9"))
    if first is None or not re.match(rf"\(?{first}", text) or len(set(digits_of(text))) < 3:
        return False
    return not (LIKE_DATE.fullmatch(text) or OTHER_NUMBER.search(before) or is_amount(before, after))


# What must not stand before is asked after the first character, so that the search can skip to such characters.
TELEPHONES = (
    Recogniser(
        "phone-international",
        "PHONE",
        re.compile(
            r"(?<![\w+])(?:\+\d{1,3}|\(\+\d{1,3}\))(?:[ .\-/]?(?:\(\d{1,5}\)|\d{1,5})){2,7}"
            + EXTENSION
            + r"(?!\w|[.,]\d)"
        ),
        "a plus, a country code and 9 to 15 digits",
        check=_is_international,
        signs=("+",),
        hint=NUMBER_HINT,
    ),
    Recogniser(
        "phone-dialled-abroad",
        "PHONE",
        re.compile(
            r"(?<![\w.,+/$€£-])(?:00[ .-]?|011[ .-])[1-9]\d{0,3}(?: ?\(0\))?(?:[ .\-/]?\d{1,5}){2,6}"
            + EXTENSION
            + r"(?!\w|[.,]\d)"
        ),
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
            r"(?<![\w.,+/$€£-])(?:(?:00)?1[-. ])?(?:\([2-9]\d\d\) ?|[2-9]\d\d[-. ])[2-9]\d\d[-. ]\d{4}"
            + EXTENSION
            + r"(?!\w|-\d|[.,]\d)"
        ),
        "area code, exchange and line of the North American plan",
        check=_is_north_american,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-by-words",
        "PHONE",
        re.compile(r"(?<![\w.,+$€£/-])[(+]?\d[\d ()./-]{4,20}\d" + EXTENSION + r"(?!\w|[.,]\d)"),
        "6 to 15 digits beside a word such as phone, fax or call",
        score=NAMED,
        check=_is_named,
        signs=SIGNS,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-trunk-zero",
        "PHONE",
        re.compile(r"(?<![\w.,+$€£/-])\(?0\d{1,5}\)?[ /.-]{1,3}\d{2,8}(?:[ .-]\d{2,4}){0,4}(?!\w|[.,]\d)"),
        "9 to 12 digits in groups, the first a zero",
        score=LIKELY,
        check=_is_trunk,
        broad=True,
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "phone-national",
        "PHONE",
        re.compile(
            r"(?<![\w.,+$€£/)-])(?<![\d)] )(?:(?:8 )?\(\d{1,3}\) ?)?\d{2,5}(?:[ -]\d{2,6}){1,3}(?![\w-]|[.,/]\d| \d)"
        ),
        "digits in groups as a country writes its telephone numbers",
        score=LIKELY,
        check=_is_national,
        broad=True,
        hint=FIVE_DIGITS,
    ),
)
