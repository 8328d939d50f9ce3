"""Surrogates: values that look like the real ones and are those of nobody.

Equal values of a document get equal surrogates, and all its dates move by one number of days. Both follow from a secret that
only this user can read, so that nobody else can compute which value a surrogate stands for; no artifact contains it.
"""

from __future__ import annotations

import hmac
import random
from collections.abc import Callable
from functools import lru_cache
from ipaddress import ip_network

from finetune.scrub.dates import shift_date
from finetune.scrub.recogniser import compact, digits_of
from finetune.scrub.recognisers import is_confirmed
from finetune.scrub.secret import own_secret

MOST_DAYS = 365  # that dates move, at least one
TRIES = 64  # draws until a number is not valid; one in ten passes a check digit
# Areas of three digits with at most 20,000 people by the census of 2000, whose ZIP codes become 000 (Office for Civil Rights,
# Guidance Regarding Methods for De-identification of Protected Health Information, 26 November 2012).
SMALL_ZIP_AREAS = frozenset("036 059 063 102 203 556 692 790 821 823 830 831 878 879 884 890 893".split())
NAMES = tuple(
    "Alex Avery Bailey Blair Cameron Carey Casey Dana Darcy Devon Drew Ellis Emery Finley Frankie Harley Hayden "
    "Jamie Jesse Jordan Kendall Kerry Lane Leslie Logan Marlow Morgan Noel Parker Perry Quinn Reese Riley Robin "
    "Rowan Sage Sawyer Shannon Shelby Sidney Skyler Stacy Sutton Taylor Terry Tracy Tyler Whitney".split()
)
TOWNS = tuple(
    "Ashbourne Brookdale Cedarville Eastmere Fernhill Glenford Hartwell Kingsbrook Lakemoor Northam Oakridge Westvale".split()
)
FIRMS = tuple("Acorn Beacon Cobalt Delta Ember Falcon Granite Harbor Juniper Keystone Lantern Meridian".split())


def surrogate(entity: str, value: str, document: str) -> str:
    """The surrogate of a value in a document."""
    if entity == "DATE":
        return shift_date(value, _days(document)) or "[DATE]"
    if entity == "AGE":
        return "90+"
    if entity == "ZIP":
        return _zip(value)
    if entity == "NAME":
        return " ".join(_name(part, document) for part in value.split()) or "[NAME]"
    draw = _draw(document, entity, compact(value))
    for _ in range(TRIES):
        made = MAKERS.get(entity, _same_shape)(draw, value)
        if compact(made) != compact(value) and not is_confirmed(entity, made):
            return made
    return f"[{entity}]"


def _draw(*parts: str) -> random.Random:
    """Random numbers that follow from some texts and the secret."""
    digest = hmac.digest(own_secret(), "\0".join(parts).encode(errors="surrogatepass"), "sha256")
    return random.Random(int.from_bytes(digest))


@lru_cache(maxsize=256)
def _days(document: str) -> int:
    draw = _draw(document, "days")
    return draw.choice((-1, 1)) * draw.randint(1, MOST_DAYS)


def _zip(value: str) -> str:
    digits = digits_of(value)
    if len(digits) not in {5, 9} or len(digits) != len(compact(value)):
        return "[ZIP]"
    return "000" if digits[:3] in SMALL_ZIP_AREAS else digits[:3]


def _name(part: str, document: str) -> str:
    """The surrogate of a part of a name: Smith is the same person as John Smith."""
    name = _draw(document, "NAME", compact(part)).choice(NAMES)
    return name.upper() if part.isupper() and len(part) > 1 else name.lower() if part.islower() else name


def _same_shape(draw: random.Random, value: str) -> str:
    """Other letters and digits in the places of the old ones."""
    return "".join(_other(draw, char) for char in value)


def _other(draw: random.Random, char: str) -> str:
    if char.isdigit():
        return str(draw.randrange(10))
    if not char.isalpha():
        return char
    letter = draw.choice("ABCDEFGHJKLMNPRSTUVWXYZ")  # those that VINs and plates use
    return letter if char.isupper() else letter.lower()


def _numbers(draw: random.Random, value: str, start: str = "") -> str:
    """The value with other digits, the first of which are given."""
    digits = iter(start)
    return "".join(next(digits, "") or str(draw.randrange(10)) if char in "0123456789" else char for char in value)


def _email(draw: random.Random, value: str) -> str:
    return f"{draw.choice(NAMES)}.{draw.choice(NAMES)}{draw.randint(10, 99)}@example.org".lower()


def _phone(draw: random.Random, value: str) -> str:
    """555-0100 to 555-0199 belong to nobody in any area (NANPA)."""
    area, line = draw.randint(201, 989), draw.randrange(100)
    return f"+1 {area}-555-01{line:02d}" if value.startswith(("+", "(+")) else f"({area}) 555-01{line:02d}"


def _ip(draw: random.Random, value: str) -> str:
    """Addresses for documentation: RFC 5737 and RFC 3849."""
    if ":" in value:
        return "2001:db8::" + ":".join(f"{draw.randrange(1, 65536):x}" for _ in range(4))
    network = ip_network(draw.choice(("192.0.2.0/24", "198.51.100.0/24", "203.0.113.0/24")))
    return str(network[draw.randint(1, 254)])


def _mac(draw: random.Random, value: str) -> str:
    """Addresses for documentation (RFC 7042, 2.1.1)."""
    gap = next((char for char in value if not char.isalnum()), ":")
    pairs = ["00", "00", "5E", "00", "53", f"{draw.randrange(256):02X}"]
    return ".".join("".join(pairs[n : n + 2]) for n in (0, 2, 4)) if gap == "." else gap.join(pairs)


def _ssn(draw: random.Random, value: str) -> str:
    """Numbers from 900 on are no social security numbers, and groups below 50 no taxpayer numbers."""
    return _numbers(draw, value, f"9{draw.randrange(100):02d}{draw.randint(1, 49):02d}")


def _iban(draw: random.Random, value: str) -> str:
    """Check digits are 02 to 98, never 00."""
    body = _same_shape(draw, value[4:])
    return f"{value[:2]}00{body}"


def _card(draw: random.Random, value: str) -> str:
    return _numbers(draw, value, digits_of(value)[:1])


def _tax_id(draw: random.Random, value: str) -> str:
    """No EIN begins with 00; a VAT number keeps its country."""
    letters = len(value) - len(value.lstrip("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    return value[:letters] + _numbers(draw, value[letters:], "" if letters else "00")


def _crypto(draw: random.Random, value: str) -> str:
    start = value[:2] if value.lower().startswith("0x") else value[:3] if value.lower().startswith("bc1") else value[:1]
    alphabet = "0123456789abcdef" if start == "0x" else "acdefghjkmnpqrstuvwxyz023456789"
    made = "".join(draw.choice(alphabet) for _ in value[len(start) :])
    return start + (made[:-2] + "aB" if start == "0x" else made)  # of two cases, which is no checksum


def _url(draw: random.Random, value: str) -> str:
    return f"https://example.org/{draw.randrange(16**8):08x}"


def _address(draw: random.Random, value: str) -> str:
    return f"{draw.randint(1, 999)} Sample {draw.choice(('Street', 'Road', 'Avenue', 'Lane'))}"


MAKERS: dict[str, Callable[[random.Random, str], str]] = {
    "EMAIL": _email,
    "PHONE": _phone,
    "IP": _ip,
    "MAC": _mac,
    "SSN": _ssn,
    "IBAN": _iban,
    "CARD": _card,
    "TAX_ID": _tax_id,
    "CRYPTO": _crypto,
    "URL": _url,
    "ADDRESS": _address,
    "LOCATION": lambda draw, value: draw.choice(TOWNS),
    "ORGANISATION": lambda draw, value: f"{draw.choice(FIRMS)} {draw.choice(('Company', 'Group', 'Partners'))}",
}
