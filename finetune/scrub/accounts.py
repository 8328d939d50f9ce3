"""Bank accounts, cards, and addresses of crypto currencies."""

from __future__ import annotations

import re

from finetune.scrub import checksums
from finetune.scrub.recogniser import (
    CHECKED,
    FIVE_DIGITS,
    NAMED,
    NUMBER_HINT,
    Recogniser,
    after_words,
    digits_of,
    has_digits,
    is_amount,
)

# First digits and lengths of the card schemes (ISO/IEC 7812, the schemes' own BIN tables).
CARD_ISSUERS = re.compile(
    r"4\d{12}(?:\d{3})?|5[1-5]\d{14}|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)\d{12}"
    r"|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d|4[4-9]\d)\d{12}|35(?:2[89]|[3-8]\d)\d{12}"
    r"|(?:5018|5020|5038|5893|6304|6759|676[1-3])\d{8,15}"
)


def _iban_length(text: str) -> int:
    """The length of the IBAN at the start, of which letters or digits of the next word are no part; 0 if there is none."""
    left = checksums.IBAN_LENGTHS.get(text[:2].upper(), 0)
    for end, char in enumerate(text, 1):
        left -= char != " "
        if left == 0:
            return end if text[end : end + 1] in {"", " "} else 0
    return 0


def _is_iban(text: str, before: str, after: str) -> bool:
    return checksums.iban(text.replace(" ", ""))


def _is_card(text: str, before: str, after: str) -> bool:
    digits = digits_of(text)
    return bool(CARD_ISSUERS.fullmatch(digits)) and not is_amount(before, after) and checksums.luhn(digits)


def _is_routing(text: str, before: str, after: str) -> bool:
    return checksums.routing(digits_of(text))


def _is_account(text: str, before: str, after: str) -> bool:
    return has_digits(6)(text, before, after) and not re.fullmatch(r"\d{1,3}(?:[ ,.]\d{3}){1,5}", text)


ACCOUNTS = (
    Recogniser(
        "iban",
        "IBAN",
        re.compile(r"[A-Za-z](?<!\w.)[A-Za-z]\d\d(?: ?[A-Za-z0-9]{4}){2,6}(?: ?[A-Za-z0-9]{1,3})?(?!\w)"),
        "length of the country and check digits (ISO 13616)",
        CHECKED,
        _is_iban,
        _iban_length,
        hint=NUMBER_HINT,
    ),
    Recogniser(
        "card",
        "CARD",
        re.compile(
            r"\d(?<![\w.,+-].)(?:\d{11,18}|\d{3}([ -])\d{4}\1\d{4}\1\d{4}|\d{3}([ -])\d{6}\2\d{4,5})(?![\w-]|[.,]\d)"
        ),
        "first digits of a card scheme and Luhn digit",
        CHECKED,
        _is_card,
        hint=NUMBER_HINT,
    ),
    Recogniser(
        "routing-number",
        "ROUTING",
        after_words(r"ABA|RTN|routing|transit", r"\d{4}[ -]?\d{4}[ -]?\d"),
        "nine digits after words such as routing, with the ABA checksum",
        CHECKED,
        _is_routing,
        signs=("aba", "rtn", "routing", "transit"),
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "account",
        "ACCOUNT",
        after_words(
            r"(?:bank |checking |savings? |customer |client |loan |mortgage |brokerage |billing |user )?"
            r"(?:accounts?|acct|a/c|konto(?:nummer|-?nr)?|compte|cuenta)|(?:customer|client|loan|sort[- ]code)"
            r"(?: id| no| number)|kundennummer",
            r"[A-Z]{0,4}-?\d[\d A-Z-]{3,24}\d",
        ),
        "six or more digits after words such as account",
        NAMED,
        _is_account,
        signs=("account", "acct", "a/c", "konto", "compte", "cuenta", "customer", "client", "loan", "kunden", "sort"),
        hint=FIVE_DIGITS,
    ),
    Recogniser(
        "bitcoin",
        "CRYPTO",
        re.compile(r"[13](?<!\w.)[1-9A-HJ-NP-Za-km-z]{25,34}(?!\w)"),
        "a Bitcoin address with its checksum (Base58Check)",
        CHECKED,
        lambda text, before, after: checksums.base58check(text),
    ),
    Recogniser(
        "bitcoin-segwit",
        "CRYPTO",
        re.compile(r"(?<!\w)(?:bc1[02-9ac-hj-np-z]{11,71}|BC1[02-9AC-HJ-NP-Z]{11,71})(?!\w)"),
        "a Bitcoin address with its checksum (BIP 173, BIP 350)",
        CHECKED,
        lambda text, before, after: checksums.bech32(text),
        signs=("bc1",),
    ),
    Recogniser(
        "ethereum",
        "CRYPTO",
        re.compile(r"(?<!\w)0x[0-9A-Fa-f]{40}(?!\w)"),
        "an Ethereum address, in one case or with the checksum of EIP-55",
        CHECKED,
        lambda text, before, after: checksums.ethereum(text),
        signs=("0x",),
    ),
)
