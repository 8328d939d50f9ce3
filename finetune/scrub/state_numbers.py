"""Numbers that states give to people and companies: social security, health and tax numbers."""

from __future__ import annotations

import re
from collections.abc import Callable

from finetune.scrub import checksums
from finetune.scrub.recogniser import (
    CHECKED,
    FIVE_DIGITS,
    NAMED,
    NUMBER_HINT,
    Check,
    Recogniser,
    after_words,
    compact,
    digits_of,
)

DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"  # Spain, Real Decreto 1553/2005: the number modulo 23
HETU_LETTERS = "0123456789ABCDEFHJKLMNPRSTUVWXY"  # Finland: the nine digits modulo 31
NOT_NINO = frozenset("BG GB KN NK NT TN ZZ".split())  # prefixes that HMRC never gives


def _is_ssn(text: str, before: str, after: str) -> bool:
    digits = digits_of(text)
    area, group, serial = digits[:3], digits[3:5], digits[5:]
    return area not in {"000", "666"} and area < "900" and group != "00" and serial != "0000"


def _is_itin(text: str, before: str, after: str) -> bool:
    group = int(digits_of(text)[3:5])  # IRS: 50 to 65, 70 to 88, 90 to 92 and 94 to 99
    return 50 <= group <= 65 or 70 <= group <= 88 or 90 <= group <= 92 or group >= 94


def on_compact(check: Callable[[str], bool]) -> Check:
    """The check of a value's letters and digits, in upper case."""
    return lambda text, before, after: check(compact(text))


def _weighted_11(digits: str, weights: tuple[int, ...], *, allowed: frozenset[int] = frozenset((0,))) -> bool:
    return checksums.weighted(digits, weights) % 11 in allowed


def _nhs(digits: str) -> bool:
    return _weighted_11(digits, (10, 9, 8, 7, 6, 5, 4, 3, 2, 1)) and len(set(digits)) > 1


def _dni(text: str) -> bool:
    number = text[:-1].translate(str.maketrans("XYZ", "012"))
    return DNI_LETTERS[int(number) % 23] == text[-1]


def _nir(digits: str) -> bool:
    return 97 - int(digits[:13]) % 97 == int(digits[13:])


def _cpf(digits: str) -> bool:
    if len(set(digits)) == 1:
        return False
    checks = (
        checksums.weighted(digits[:9], range(10, 1, -1)) * 10 % 11 % 10,
        checksums.weighted(digits[:10], range(11, 1, -1)) * 10 % 11 % 10,
    )
    return digits[9:] == "".join(map(str, checks))


def _hetu(text: str) -> bool:
    return HETU_LETTERS[int(text[:6] + text[-4:-1]) % 31] == text[-1]


def _ean(digits: str) -> bool:
    return checksums.weighted(digits, (1, 3) * 7) % 10 == 0


def _bsn(digits: str) -> bool:
    return _weighted_11(digits, (9, 8, 7, 6, 5, 4, 3, 2, -1)) and digits != "000000000"


def _vat(text: str) -> bool:
    """Whether a European VAT number has the check digits of its country (European Commission, VIES)."""
    country, number = ("CHE", text[3:12]) if text.startswith("CHE") else (text[:2], text[2:])
    check = VAT_CHECKS.get(country)
    try:
        return check is not None and check(number)
    except (ValueError, IndexError):
        return False


def _vat_fr(number: str) -> bool:
    return len(number) == 11 and int(number[:2]) == (12 + 3 * (int(number[2:]) % 97)) % 97


def _vat_gb(number: str) -> bool:
    total = checksums.weighted(number[:7], range(8, 1, -1)) + int(number[7:9])
    return len(number) in {9, 12} and (total % 97 == 0 or (total + 55) % 97 == 0)


def _vat_nl(number: str) -> bool:
    if len(number) != 12 or number[9] != "B":
        return False
    spelt = "".join(str(int(char, 36)) for char in "NL" + number)
    return int(spelt) % 97 == 1 or _bsn(number[:9])


def _vat_at(number: str) -> bool:
    doubled = sum(int(d) if n % 2 == 0 else sum(divmod(2 * int(d), 10)) for n, d in enumerate(number[1:8]))
    return len(number) == 9 and number[0] == "U" and (10 - (doubled + 4) % 10) % 10 == int(number[8])


VAT_CHECKS: dict[str, Callable[[str], bool]] = {
    "AT": _vat_at,
    "BE": lambda number: len(number) == 10 and 97 - int(number[:8]) % 97 == int(number[8:]),
    "CHE": lambda number: _weighted_11(number, (5, 4, 3, 2, 7, 6, 5, 4, 1)),
    "DE": lambda number: len(number) == 9 and checksums.mod_11_10(number),
    "DK": lambda number: len(number) == 8 and _weighted_11(number, (2, 7, 6, 5, 4, 3, 2, 1)),
    "ES": lambda number: len(number) == 9 and _dni(number),
    "FI": lambda number: len(number) == 8 and _weighted_11(number, (7, 9, 10, 5, 8, 4, 2, 1)),
    "FR": _vat_fr,
    "GB": _vat_gb,
    "IT": lambda number: len(number) == 11 and checksums.luhn(number),
    "LU": lambda number: len(number) == 8 and int(number[:6]) % 89 == int(number[6:]),
    "NL": _vat_nl,
    "PL": lambda number: (
        len(number) == 10 and checksums.weighted(number[:9], (6, 5, 7, 2, 3, 4, 5, 6, 7)) % 11 == int(number[9])
    ),
    "PT": lambda number: (
        len(number) == 9 and _weighted_11(number, (9, 8, 7, 6, 5, 4, 3, 2, 1), allowed=frozenset((0, 1)))
    ),
    "SE": lambda number: len(number) == 12 and checksums.luhn(number[:10]),
}


def _strict(name: str, entity: str, pattern: str, reason: str, check: Callable[[str], bool]) -> Recogniser:
    whole = re.compile(rf"(?<![\w.,-]){pattern}(?![\w-]|[.,]\d)")
    return Recogniser(name, entity, whole, reason, CHECKED, on_compact(check), hint=FIVE_DIGITS)


def _named(name: str, words: str, pattern: str, check: Callable[[str], bool], signs: tuple[str, ...]) -> Recogniser:
    reason, whole = f"{name} by its name and its check digit", after_words(words, pattern)
    return Recogniser(name, "NATIONAL_ID", whole, reason, CHECKED, on_compact(check), signs=signs, hint=FIVE_DIGITS)


STATE_NUMBERS = (
    Recogniser(
        "ssn",
        "SSN",
        re.compile(r"\d(?<![\w.,+-].)\d\d-\d\d-\d{4}(?![\w-]|[.,]\d)"),
        "three, two and four digits in the ranges of US social security numbers",
        check=_is_ssn,
        signs=("-",),
        hint=NUMBER_HINT,
    ),
    Recogniser(
        "ssn-by-words",
        "SSN",
        after_words(r"SSN|social security", r"\d{3}[ .-]?\d{2}[ .-]?\d{4}"),
        "nine digits after SSN or social security",
        check=_is_ssn,
        signs=("ssn", "social security"),
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "itin",
        "TAX_ID",
        re.compile(r"(?<![\w.,+-])9\d\d-\d\d-\d{4}(?![\w-]|[.,]\d)"),
        "a US individual taxpayer number by its ranges",
        check=_is_itin,
        signs=("-",),
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "tax-id-by-words",
        "TAX_ID",
        after_words(
            r"F?EIN|TIN|ITIN|employer identification|tax(?:payer)?(?: id(?:entification)?| ref(?:erence)?)?|steuernummer"
            r"|steuer-?nr",
            r"\d{2}-?\d{7}|\d{2,3}[/ ]\d{3}[/ ]\d{4,5}|\d{3}-\d{2}-\d{4}",
        ),
        "digits after words such as EIN or tax id",
        NAMED,
        signs=("ein", "tin", "tax", "employer id", "steuer"),
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "vat",
        "TAX_ID",
        re.compile(
            r"(?<!\w)(?:CHE|AT|BE|DE|DK|ES|FI|FR|GB|IT|LU|NL|PL|PT|SE)[ -]?[A-Z0-9](?:[ .-]?[A-Z0-9]){7,11}(?!\w)"
        ),
        "a European VAT number with the check digits of its country",
        CHECKED,
        on_compact(_vat),
        hint=re.compile(r"[A-Z]{2}[ -]?[A-Z0-9]{1,3}[ .-]?\d{2}"),
    ),
    Recogniser(
        "nino",
        "NATIONAL_ID",
        re.compile(r"(?<!\w)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d\d ?\d\d ?\d\d ?[A-D](?!\w)"),
        "a British national insurance number by its letters",
        check=lambda text, before, after: text[:2] not in NOT_NINO,
        hint=FIVE_DIGITS,
    ),
    _strict("dni", "NATIONAL_ID", r"(?:\d{8}|[XYZ]-?\d{7})-?[A-Z]", "a Spanish DNI or NIE with its letter", _dni),
    _strict(
        "codice-fiscale",
        "NATIONAL_ID",
        r"[A-Z]{6}\d\d[A-EHLMPRST]\d\d[A-Z]\d{3}[A-Z]",
        "an Italian codice fiscale with its letter",
        checksums.codice_fiscale,
    ),
    _strict(
        "nir",
        "NATIONAL_ID",
        r"[12] ?\d\d ?(?:0[1-9]|1[0-2]) ?\d\d ?\d{3} ?\d{3} ?\d\d",
        "a French social security number with its key",
        _nir,
    ),
    _strict("cpf", "NATIONAL_ID", r"\d{3}\.\d{3}\.\d{3}-\d\d", "a Brazilian CPF with its check digits", _cpf),
    _strict("hetu", "NATIONAL_ID", r"\d{6}[-+ABCDEF]\d{3}[0-9A-Y]", "a Finnish identity code with its letter", _hetu),
    _strict(
        "ahv", "NATIONAL_ID", r"756\.?\d{4}\.?\d{4}\.?\d\d", "a Swiss social security number with its check digit", _ean
    ),
    _named("NHS number", r"NHS", r"\d{3}[ -]?\d{3}[ -]?\d{4}", _nhs, ("nhs",)),
    _named("SIN", r"SIN|social insurance", r"\d{3}[ -]?\d{3}[ -]?\d{3}", checksums.luhn, ("sin", "social insurance")),
    _named("Aadhaar", r"aadhaa?r", r"\d{4}[ -]?\d{4}[ -]?\d{4}", checksums.verhoeff, ("aadhaar", "aadhar")),
    _named("BSN", r"BSN|burgerservice(?:nummer)?", r"\d{4}[ .]?\d{2}[ .]?\d{3}", _bsn, ("bsn", "burgerservice")),
    _named(
        "Steuer-ID",
        r"steuer-?id(?:entifikationsnummer)?|IdNr\.?|TIN",
        r"\d{2} ?\d{3} ?\d{3} ?\d{3}",
        checksums.mod_11_10,
        ("steuer-id", "steuerid", "idnr", "tin"),
    ),
    _named(
        "PESEL",
        r"PESEL",
        r"\d{11}",
        lambda digits: checksums.weighted(digits, (1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1)) % 10 == 0,
        ("pesel",),
    ),
    _named("personnummer", "personnummer", r"\d{6}[-+]?\d{4}", checksums.luhn, ("personnummer",)),
    _named(
        "TFN",
        r"TFN|tax file",
        r"\d{3} ?\d{3} ?\d{3}",
        lambda d: _weighted_11(d, (1, 4, 3, 7, 5, 8, 6, 9, 10)),
        ("tfn", "tax file"),
    ),
)
