"""Numbers that only the words before them tell from others: of records, plans, licences, vehicles and devices."""

from __future__ import annotations

import re

from finetune.scrub import checksums
from finetune.scrub.recogniser import (
    CHECKED,
    NAMED,
    SHAPED,
    THREE_DIGITS,
    Recogniser,
    after_words,
    compact,
    digits_of,
    has_digits,
)

NUMBER = r"(?: ?(?:numbers?|no\.?|num\.?|nr\.?|id|code)|(?= ?#))"
PLATE = r"[A-Z0-9]{1,4}(?:[ -]?[A-Z0-9]{1,4}){1,2}"
MBI = r"[1-9](?<![\w-].)[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y][AC-HJKMNP-RT-Y0-9]\d-?[AC-HJKMNP-RT-Y]{2}\d\d"


def _is_vin(text: str, before: str, after: str) -> bool:
    is_mixed = any(map(str.isalpha, text)) and any(map(str.isdigit, text))
    return is_mixed and checksums.vin(text)


def _is_plate(text: str, before: str, after: str) -> bool:
    return any(map(str.isalpha, text)) and any(map(str.isdigit, text))


def _is_imei(text: str, before: str, after: str) -> bool:
    return checksums.luhn(digits_of(text))


def _is_npi(text: str, before: str, after: str) -> bool:
    return checksums.luhn("80840" + text)  # the prefix of the standard (45 CFR 162.406)


def _is_dea(text: str, before: str, after: str) -> bool:
    digits = digits_of(text)[-7:]
    total = checksums.weighted(digits[:6], (1, 2, 1, 2, 1, 2))  # DEA: first, third, fifth, and twice the others
    return total % 10 == int(digits[6])


def _is_vehicle(text: str, before: str, after: str) -> bool:
    return len(compact(text)) == 17 and any(map(str.isdigit, text))


LABELLED = (
    Recogniser(
        "medical-record",
        "MEDICAL_RECORD",
        after_words(
            rf"MRN|MR(?= ?#)|URN|(?:medical|patient|health|hospital|clinic|chart|case|admission|encounter|visit"
            rf"|accession|specimen)"
            rf"(?: record)?{NUMBER}|medical record|patientennummer|fallnummer|numéro de dossier"
        ),
        "a number after words such as MRN or medical record",
        NAMED,
        has_digits(4),
        signs=tuple(
            "mrn mr urn medical patient health hospital clinic chart case admission encounter visit "
            "accession specimen fallnummer dossier".split()
        ),
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "health-plan",
        "HEALTH_PLAN",
        after_words(
            rf"(?:health (?:plan|insurance)|insurance|member(?:ship)?|subscriber|beneficiary|policy(?:holder)?"
            rf"|medicare|medicaid"
            rf"|group|payer|claim|prescription|rx|prior authorization){NUMBER}|HICN|MBI|versicherten(?:nummer|-?nr)"
        ),
        "a number after words such as member id or policy number",
        NAMED,
        has_digits(4),
        signs=tuple(
            "health insurance member subscriber beneficiary policy medicare medicaid group payer claim "
            "prescription rx authorization hicn mbi versichert".split()
        ),
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "medicare",
        "HEALTH_PLAN",
        re.compile(rf"{MBI}(?![\w-])"),
        "the shape of a US Medicare beneficiary identifier",
        SHAPED,
    ),
    Recogniser(
        "licence",
        "LICENCE",
        after_words(
            rf"(?:drivers?'?s?|driver’s|driving|medical|professional|pilot'?s?|nursing|marriage|gun|business|practice)"
            rf" (?:licen[cs]e|permit)|licen[cs]e{NUMBER}"
            rf"|(?:certificate|permit|passport|visa|identity card|id card)(?:{NUMBER})?"
            rf"|DL|führerschein(?:nummer)?|permis de conduire|reisepass(?:nummer)?|pasaporte"
        ),
        "a number after words such as driver's license or passport",
        NAMED,
        has_digits(4),
        signs=tuple("licen permit certificate passport visa card dl führerschein permis reisepass pasaporte".split()),
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "npi",
        "LICENCE",
        after_words(r"NPI", r"[12]\d{9}"),
        "a US provider number with its check digit",
        CHECKED,
        _is_npi,
        signs=("npi",),
    ),
    Recogniser(
        "dea",
        "LICENCE",
        re.compile(r"[ABFGMPR](?<!\w.)[A-Z9]\d{7}(?!\w)"),
        "a US DEA number with its check digit",
        SHAPED,
        _is_dea,
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "vin",
        "VIN",
        re.compile(r"[A-HJ-NPR-Z0-9](?<![\w-].)[A-HJ-NPR-Z0-9]{16}(?![\w-])"),
        "17 characters with the check digit of a vehicle",
        CHECKED,
        _is_vin,
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "vin-by-words",
        "VIN",
        after_words(
            r"VIN|chassis|vehicle id(?:entification)?|fahrgestell(?:nummer|-?nr)", r"[A-HJ-NPR-Za-hj-npr-z0-9]{17}"
        ),
        "17 characters after VIN or chassis",
        NAMED,
        _is_vehicle,
        signs=tuple("vin chassis vehicle fahrgestell".split()),
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "plate",
        "PLATE",
        after_words(
            r"(?:licen[cs]e|number|registration|vehicle|car)[ -]?plates?|plate|kennzeichen|targa|matrícula", PLATE
        ),
        "letters and digits after words such as license plate",
        NAMED,
        _is_plate,
        signs=tuple("plate kennzeichen targa matrícula".split()),
    ),
    Recogniser(
        "imei",
        "DEVICE",
        after_words(r"IMEI", r"\d{2}[ -]?\d{6}[ -]?\d{6}[ -]?\d"),
        "15 digits after IMEI, with the Luhn digit",
        CHECKED,
        _is_imei,
        signs=("imei",),
    ),
    Recogniser(
        "device",
        "DEVICE",
        after_words(
            rf"serial(?:{NUMBER})?|S/N|(?:device|machine|implant|pacemaker|sensor|pump|equipment|asset|handset)"
            rf"(?: serial)?{NUMBER}"
            r"|UDI|IMSI|ICCID|seriennummer"
        ),
        "a number after words such as serial number or device id",
        NAMED,
        has_digits(3),
        signs=tuple(
            "serial s/n device machine implant pacemaker sensor pump equipment asset handset udi imsi "
            "iccid seriennummer".split()
        ),
        hint=THREE_DIGITS,
    ),
    Recogniser(
        "biometric",
        "BIOMETRIC",
        after_words(
            r"(?:finger|voice|palm|face|foot)[ -]?print(?: (?:id|hash|template|code|record|no\.?|number))?"
            r"|(?:retinal?|iris|facial|face|vein)"
            r"(?: scan)? (?:id|hash|template|code|record)|biometric(?: (?:id|identifier|hash|template|record|code))?"
        ),
        "a number after words such as fingerprint id",
        NAMED,
        has_digits(3),
        signs=tuple("print retina iris facial face vein biometric".split()),
        hint=THREE_DIGITS,
    ),
)
