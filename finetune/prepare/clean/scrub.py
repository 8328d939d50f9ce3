"""Replaces structured identifiers with placeholders: those found by a pattern and confirmed by a check.

E-mail addresses, IBANs (check digits), payment cards (issuer, grouping and Luhn digit), US social security numbers,
telephone numbers in international format and public IPv4 addresses. Names, postal addresses, dates of birth, record numbers and
telephone numbers in national format are NOT found: scrubbed text is not anonymous.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from ipaddress import AddressValueError, IPv4Address

# Lengths from the IBAN registry (ISO 13616), so that a word after the number is not read as part of it.
IBAN_LENGTHS = {
    **dict.fromkeys(["NO"], 15),
    **dict.fromkeys(["BE"], 16),
    **dict.fromkeys(["DK", "FI", "FO", "GL", "NL"], 18),
    **dict.fromkeys(["MK", "SI"], 19),
    **dict.fromkeys(["AT", "BA", "EE", "KZ", "LT", "LU", "XK"], 20),
    **dict.fromkeys(["CH", "HR", "LI", "LV"], 21),
    **dict.fromkeys(["BG", "BH", "CR", "DE", "GB", "GE", "IE", "ME", "RS"], 22),
    **dict.fromkeys(["AE", "GI", "IL", "IQ"], 23),
    **dict.fromkeys(["AD", "CZ", "ES", "MD", "PK", "RO", "SA", "SE", "SK", "TN"], 24),
    **dict.fromkeys(["PT", "ST"], 25),
    **dict.fromkeys(["IS", "TR"], 26),
    **dict.fromkeys(["FR", "GR", "IT", "MC", "SM"], 27),
    **dict.fromkeys(["AL", "AZ", "BY", "CY", "DO", "GT", "HU", "LB", "PL", "SV"], 28),
    **dict.fromkeys(["BR", "EG", "QA", "UA"], 29),
    **dict.fromkeys(["JO", "KW", "MU"], 30),
    **dict.fromkeys(["MT", "SC"], 31),
}
# First digits and lengths of the card schemes (ISO/IEC 7812, the schemes' own BIN tables).
CARD_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
)
# Country codes of ITU-T E.164.
CALLING_CODES = re.compile(
    r"1|7|2(?:0|7|[1-69]\d)|3(?:[0-469]|[578]\d)|4(?:[013-9]|2\d)|5(?:[1-8]|[09]\d)|6(?:[0-6]|[789]\d)"
    r"|8(?:[1246]|[058]\d)|9(?:[0-58]|6[0-8]|7[0-79]|9[2-68])"
)
AMOUNT_BEFORE = re.compile(r"(?:[$€£¥%]|\b(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|NOK|SEK|DKK|INR|CNY|by))\s*$", re.I)
AMOUNT_AFTER = re.compile(
    r"\s*(?:[$€£¥%]|(?:USD|EUR|GBP|CHF|JPY|CAD|AUD|NOK|SEK|DKK|INR|CNY|dollars?|euros?|pounds?|francs?|yen|kron[aeo]r?"
    r"|rupees?|shares?|units?|percent|per cent|basis points?|tonnes?|barrels?|ounces?)\b)",
    re.I,
)
NUMBERED_BEFORE = re.compile(
    r"(?:\bv|version|release|firmware|build|driver|section|chapter|clause|item|article|paragraph|§|\b(?:EC|OID)):?\.?\s*$"
    r"|(?:^|\n)#{1,6} $",
    re.I,
)
# One address in 4,096 has no larger number; nearly all numbers of sections, versions and objects (1.3.6.1) are like that.
SMALL_OCTET = 32
SHELL_BEFORE = re.compile(r"\b(?:ssh|sftp|scp|rsync)(?: |://)$")  # a login on a machine, not an address
ACCOUNTS = frozenset(("git", "hg", "svn"))  # of code hosts, which all users share: git@host:group/project.git


def _is_iban(text: str, before: str, after: str) -> bool:
    compact = text.replace(" ", "").upper()
    if IBAN_LENGTHS.get(compact[:2]) != len(compact):
        return False
    return int("".join(str(int(char, 36)) for char in compact[4:] + compact[:4])) % 97 == 1  # ISO 7064


def _is_card(text: str, before: str, after: str) -> bool:
    digits = re.sub(r"\D", "", text)
    if not CARD_ISSUERS.fullmatch(digits) or _is_amount(before, after):
        return False
    doubled = (int(digit) * (2 if position % 2 else 1) for position, digit in enumerate(reversed(digits)))
    return sum(value - 9 if value > 9 else value for value in doubled) % 10 == 0  # Luhn


def _is_ssn(text: str, before: str, after: str) -> bool:
    area, group, serial = text.split("-")
    return area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"


def _is_phone(text: str, before: str, after: str) -> bool:
    digits = re.sub(r"\D", "", text)
    code = CALLING_CODES.match(digits)
    if code is None or not 9 <= len(digits) <= 15 or _is_amount(before, after):
        return False
    if code[0] in {"1", "7"} and len(digits) != 11:
        return False
    # +200 000 000 is a figure: groups of three that end in zeros.
    return not re.fullmatch(r"\+\d{1,3}(?: \d{3})* 000", text)


def _is_ipv4(text: str, before: str, after: str) -> bool:
    try:
        address = IPv4Address(text)
    except AddressValueError:
        return False
    is_public = address.is_global and not address.is_multicast  # not private, loopback, a netmask or for documentation
    return is_public and max(address.packed) >= SMALL_OCTET and not NUMBERED_BEFORE.search(before)


def _is_amount(before: str, after: str) -> bool:
    return bool(AMOUNT_BEFORE.search(before) or AMOUNT_AFTER.match(after))


def _is_email(text: str, before: str, after: str) -> bool:
    is_login = text.partition("@")[0].lower() in ACCOUNTS or SHELL_BEFORE.search(before) or after[:2] in {":/", ":~"}
    return not is_login and not after.startswith("(")  # x@w.transpose() is code


@dataclass(frozen=True)
class Identifier:
    """A kind of identifier: a character that it has, the pattern that finds it, and the check that confirms it."""

    entity: str
    sign: str
    pattern: re.Pattern[str]
    check: Callable[[str, str, str], bool]


# What must not stand before is asked after the first character, so that the search can skip to such characters.
EMAIL = Identifier(
    "EMAIL",
    "@",
    re.compile(r"(?<![\w.+-])[\w.+%-]{1,64}@(?:[^\W_](?:[\w-]{0,61}[^\W_])?\.)+[^\W\d_]{2,24}\b"),
    _is_email,
)
NUMBERS = (
    Identifier(
        "IBAN",
        "",
        re.compile(r"[A-Za-z](?<!\w.)[A-Za-z]\d\d(?: ?[A-Za-z0-9]{4}){2,6}(?: ?[A-Za-z0-9]{1,3})?(?!\w)"),
        _is_iban,
    ),
    Identifier(
        "CARD",
        "",
        re.compile(
            r"\d(?<![\w.,+-].)(?:\d{12,15}|\d{3}([ -])\d{4}\1\d{4}\1\d{4}|\d{3}([ -])\d{6}\2\d{4,5})(?![\w-]|[.,]\d)"
        ),
        _is_card,
    ),
    Identifier("SSN", "-", re.compile(r"\d(?<![\w.,+-].)\d\d-\d\d-\d{4}(?![\w-]|[.,]\d)"), _is_ssn),
    Identifier(
        "PHONE",
        "+",
        re.compile(r"(?<![\w+])(?:\+\d{1,3}|\(\+\d{1,3}\))(?:[ .\-/]?(?:\(\d{1,5}\)|\d{1,5})){2,7}(?!\w|[.,]\d)"),
        _is_phone,
    ),
    Identifier("IP", ".", re.compile(r"\d(?<![\w.].)\d{0,2}(?:\.\d{1,3}){3}(?!\w|\.\d)"), _is_ipv4),
)
# What one of these numbers has, in this order, and few other texts have: one search instead of five.
NUMBER_HINT = re.compile(r"\d(?:(?<=[A-Za-z][A-Za-z]\d)\d|\d{3}[ -]?\d{4}|\d\d-\d\d-|(?<=\+\d)|\.\d{1,3}\.\d)")
CONTEXT = 24  # characters before and after that the checks see


def scrub(text: str, counts: Counter[str]) -> str:
    """Replace the identifiers in `text` with `[EMAIL]`, `[IBAN]`, `[CARD]`, `[SSN]`, `[PHONE]`, `[IP]` and count them."""
    for identifier in (EMAIL, *NUMBERS) if _has_digit(text) and NUMBER_HINT.search(text) else (EMAIL,):
        if identifier.sign in text:
            text = identifier.pattern.sub(partial(_replace, identifier, counts), text)
    return text


def _has_digit(text: str) -> bool:
    """Whether a pattern with a digit can match; ten searches for a character are faster than one for a class."""
    return any(map(text.__contains__, "0123456789")) or not text.isascii()


def _replace(identifier: Identifier, counts: Counter[str], match: re.Match[str]) -> str:
    before, after = match.string[: match.start()][-CONTEXT:], match.string[match.end() : match.end() + CONTEXT]
    if identifier.check(match[0], before, after):
        counts[identifier.entity] += 1
        return f"[{identifier.entity}]"
    shorter = _shorter_iban(match[0]) if identifier.entity == "IBAN" else None
    if shorter is None:
        return match[0]
    counts["IBAN"] += 1
    return f"[IBAN]{match[0][len(shorter) :]}"


def _shorter_iban(text: str) -> str | None:
    """The IBAN at the start of `text`, if letters or digits of the next word were taken as part of it."""
    length = IBAN_LENGTHS.get(text[:2].upper(), 0)
    for end in range(length, len(text)):
        start = text[:end]
        if text[end] == " " and len(start.replace(" ", "")) == length:
            return start if _is_iban(start, "", "") else None
    return None
