"""Dates in many forms, read so that they can be shifted, and ages over 89."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta

from finetune.scrub.recogniser import LIKELY, NAMED, Recogniser

# Names of months by language, in order; the abbreviations follow.
MONTHS = {
    "en": "january february march april may june july august september october november december",
    "en short": "jan feb mar apr may jun jul aug sep oct nov dec",
    "en four": "jan feb mar apr may june july aug sept oct nov dec",
    "de": "januar februar märz april mai juni juli august september oktober november dezember",
    "fr": "janvier février mars avril mai juin juillet août septembre octobre novembre décembre",
    "es": "enero febrero marzo abril mayo junio julio agosto septiembre octubre noviembre diciembre",
    "it": "gennaio febbraio marzo aprile maggio giugno luglio agosto settembre ottobre novembre dicembre",
    "pt": "janeiro fevereiro março abril maio junho julho agosto setembro outubro novembro dezembro",
    "nl": "januari februari maart april mei juni juli augustus september oktober november december",
}
MONTH_LISTS = tuple(tuple(names.split()) for names in MONTHS.values())
WEEKDAYS = (
    tuple("monday tuesday wednesday thursday friday saturday sunday".split()),
    tuple("montag dienstag mittwoch donnerstag freitag samstag sonntag".split()),
    tuple("lundi mardi mercredi jeudi vendredi samedi dimanche".split()),
    tuple("lunes martes miércoles jueves viernes sábado domingo".split()),
)
MODAL = frozenset(("may", "march", "mar", "mai", "mars"))  # also words; without a year they count only with a capital
LEAP_YEAR, MIDDLE = 2000, 15  # stand in for what a date leaves out

_NAMES = "|".join(sorted({name for names in MONTH_LISTS for name in names}, key=lambda name: (-len(name), name)))
_DAY = r"(?P<day>0?[1-9]|[12]\d|3[01])"
_ORDINAL = r"(?P<ordinal>st|nd|rd|th|\.|er|º|ª)?"
_YEAR = r"(?P<year>(?:1[89]|20)\d\d)"
_TIME = (
    r"(?:,? (?:at )?|T)(?:[01]?\d|2[0-3])[:.h][0-5]\d(?::[0-5]\d(?:\.\d{1,6})?)?(?: ?[ap]\.?m\b)?(?:Z|[+-]\d\d:?\d\d)?"
)
ISO = re.compile(
    rf"(?<![\w.,/-]){_YEAR}(?P<gap>[-/.])(?P<month>0?[1-9]|1[0-2])(?P=gap){_DAY}(?:{_TIME})?(?![\w/-]|\.\d)"
)
NUMERIC = re.compile(
    rf"(?<![\w.,/-])(?P<first>\d{{1,2}})(?P<gap>[-/.])(?P<second>\d{{1,2}})(?P=gap)"
    rf"(?:{_YEAR}|(?P<short>(?<=/)\d\d))(?:{_TIME})?"
    r"(?![\w/-]|\.\d)"
)
DAY_FIRST = re.compile(
    rf"(?<![\w.,/-]){_DAY}{_ORDINAL}(?: of| de| di)?[ -]{{1,2}}(?P<name>{_NAMES})(?!\w)\.?"
    rf"(?:,?(?: de| del)?[ -]{_YEAR}(?!\d)(?:{_TIME})?)?",
    re.I,
)
MONTH_FIRST = re.compile(
    rf"(?<![\w-])(?P<name>{_NAMES})(?!\w)\.? (?:the )?{_DAY}(?!\d|[,.]\d{{3}}(?!\d)|%|:){_ORDINAL}(?!\w)"
    rf"(?:,? {_YEAR}(?!\d)(?:{_TIME})?)?",
    re.I,
)
MONTH_YEAR = re.compile(rf"(?<![\w-])(?P<name>{_NAMES})(?!\w)\.?,? (?:of |de )?{_YEAR}(?!\w)", re.I)
NUMBER_YEAR = re.compile(rf"(?<![\w.,/-])(?P<month>0?[1-9]|1[0-2])/{_YEAR}(?![\w/])")
NO_YEAR = re.compile(r"(?<=\b(?:on|by) )(?P<first>\d{1,2})(?P<gap>/)(?P<second>\d{1,2})(?![\w/%]|[.,]\d)")
WEEKDAY = re.compile(
    rf"(?<![\w-])(?P<weekday>{'|'.join(name for names in WEEKDAYS for name in names)})s?(?![\w-])", re.I
)
SHAPES = (ISO, NUMERIC, DAY_FIRST, MONTH_FIRST, MONTH_YEAR, NUMBER_YEAR, NO_YEAR)


def read_date(match: re.Match[str]) -> tuple[date, Mapping[str, str]] | None:
    """The day that a match of one of `SHAPES` means, and what each of its groups holds of it; None if there is no such day.

    Of 4/5/2021 the month is the first, as in the US, unless that is no month or dots divide the numbers.
    """
    groups = {name: text for name, text in match.groupdict().items() if text is not None}
    roles = {"day": "day", "month": "month", "name": "name", "year": "year", "short": "short"}
    if "first" in groups:
        day_first = groups["gap"] == "." or int(groups["first"]) > 12
        roles |= {"first": "day" if day_first else "month", "second": "month" if day_first else "day"}
    parts = {roles[name]: text for name, text in groups.items() if name in roles}
    year = int(parts["year"]) if "year" in parts else _whole_year(parts["short"]) if "short" in parts else LEAP_YEAR
    month = _month_of(parts["name"])[1] if "name" in parts else int(parts["month"])
    try:
        return date(year, month, int(parts.get("day", MIDDLE))), {name: roles[name] for name in groups if name in roles}
    except ValueError:
        return None


def _whole_year(short: str) -> int:
    return int(short) + (1900 if int(short) > 40 else 2000)


def _month_of(name: str) -> tuple[tuple[str, ...], int]:
    names = next(each for each in MONTH_LISTS if name.lower() in each)
    return names, names.index(name.lower()) + 1


def shift_date(text: str, days: int) -> str | None:
    """The date a number of days later, written in the same way; None if its form is not known."""
    if day := WEEKDAY.fullmatch(text):
        names = next(each for each in WEEKDAYS if day["weekday"].lower() in each)
        shifted = names[(names.index(day["weekday"].lower()) + days) % 7]
        return _in_case_of(day["weekday"], shifted) + text[day.end("weekday") :]
    for shape in SHAPES:
        for match in (shape.fullmatch(text), shape.fullmatch(f"on {text}", 3) if shape is NO_YEAR else None):
            read = read_date(match) if match else None
            if match and read:
                return _rewrite(match, read[1], read[0] + timedelta(days))
    return None


def _rewrite(match: re.Match[str], roles: Mapping[str, str], day: date) -> str:
    text, written = match[0], match.groupdict()
    numbers = [group for group, role in roles.items() if role in {"day", "month"}]
    pad = any(match[group].startswith("0") for group in numbers) or sum(len(match[group]) for group in numbers) == 4
    for group in sorted([*roles, *(["ordinal"] if written.get("ordinal") else [])], key=match.start, reverse=True):
        start, end = match.start(group) - match.start(), match.end(group) - match.start()
        text = text[:start] + _written(roles.get(group, group), match[group], day, 2 if pad else 1) + text[end:]
    return text


def _written(role: str, old: str, day: date, width: int) -> str:
    """One part of a date in the form that the old one has; days and months have at least `width` digits."""
    match role:
        case "year":
            return f"{day.year:04d}"
        case "short":
            return f"{day.year % 100:02d}"
        case "name":
            return _in_case_of(old, _month_of(old)[0][day.month - 1])
        case "ordinal":
            number = day.day
            usual = "th" if 11 <= number <= 13 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
            return usual if old.lower() in {"st", "nd", "rd", "th"} else old
    return f"{day.day if role == 'day' else day.month:0{width}d}"


def _in_case_of(old: str, new: str) -> str:
    return new.upper() if old.isupper() else new.capitalize() if old[:1].isupper() else new


def _is_date(shape: re.Pattern[str]) -> Recogniser:
    named = "name" in shape.groupindex

    def check(text: str, before: str, after: str) -> bool:
        match = shape.fullmatch(text) or (shape.fullmatch(f"on {text}", 3) if shape is NO_YEAR else None)
        if match is None or read_date(match) is None:
            return False
        is_word = named and match["name"] in MODAL and not match.groupdict().get("year")
        return not is_word

    return Recogniser(
        "date-by-name" if named else "date-in-numbers",
        "DATE",
        shape,
        "a day or a month with its name" if named else "a day that exists, in numbers",
        NAMED if shape is not NO_YEAR else LIKELY,
        check,
        broad=True,
    )


_OLD = r"(?P<value>9\d|1[0-3]\d)"
_NINETIES = r"ninet(?:y|ies)(?:[- ](?:one|two|three|four|five|six|seven|eight|nine))?"
DATES = (
    *map(_is_date, SHAPES),
    Recogniser("weekday", "DATE", WEEKDAY, "the name of a day of the week", LIKELY, digits=False, broad=True),
    Recogniser(
        "date-by-words",
        "DATE",
        re.compile(
            r"\b(?i:DOB|date of birth|born|birth ?date)[\s:]{1,3}(?P<value>\d{6}|\d{8}|\d\d \d\d (?:\d\d){1,2})(?!\w)"
        ),
        "six or eight digits after words such as date of birth",
        NAMED,
        broad=True,
    ),
    Recogniser(
        "age-in-years",
        "AGE",
        re.compile(rf"(?<![\w.,-]){_OLD}(?=[ -]?(?:years?|yrs?\.?|y)[- ]?(?:old|of[- ]age|/?o)\b)", re.I),
        "a number of years over 89 before words such as years old",
        NAMED,
        broad=True,
    ),
    Recogniser(
        "age-by-words",
        "AGE",
        re.compile(rf"\b(?:age[ds]?|turned|turning)(?: of)?[ :=]{{1,3}}{_OLD}(?![\w%]|[.,]\d)", re.I),
        "a number over 89 after words such as aged",
        NAMED,
        broad=True,
    ),
    Recogniser(
        "age-in-words",
        "AGE",
        re.compile(rf"(?<!\w)(?:{_NINETIES}(?=[- ]years?[- ](?:old|of age))|(?<=\bh(?:is|er) )nineties)(?!\w)", re.I),
        "an age over 89 in words",
        NAMED,
        signs=("ninet",),
        digits=False,
        broad=True,
    ),
)
