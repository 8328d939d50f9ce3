"""Postal codes and street addresses."""

from __future__ import annotations

import re

from finetune.scrub.recogniser import LIKELY, NAMED, Recogniser, after_words, is_amount, is_no_amount

STATES = (
    "AL AK AZ AR CA CO CT DE DC FL GA HI ID IL IN IA KS KY LA ME MD MA MI MN MS MO MT NE NV NH NJ NM NY NC ND OH OK OR PA "
    "RI SC SD TN TX UT VT VA WA WV WI WY PR GU VI AS MP AA AE AP"
)
# The kinds of streets: after a name in English, joined to it in Germanic languages, before it in others.
KINDS = (
    "street str st avenue ave road rd boulevard blvd lane ln drive dr court ct place pl square sq terrace ter way highway hwy "
    "parkway pkwy circle cir trail trl crescent close alley row walk gardens grove hill mews quay wharf turnpike"
)
JOINED = (
    "straße strasse str weg gasse platz allee damm ufer ring straat laan plein kade gracht vej gade vei veien veg vegen gata "
    "gate gatan vägen katu tie tee tanya utca út"
)
BEFORE = (
    "rue avenue av boulevard bd place chemin impasse allée quai via viale piazza corso vicolo calle avenida paseo plaza camino "
    "camiño carrer rua travessa praça estrada ulica ul aleja trg ulice str utca"
)


def _any_of(words: str) -> str:
    return "|".join(sorted(words.split(), key=lambda word: (-len(word), word)))


_WORD = r"[^\W\d_][\w'’.-]{0,24}"
_NUMBER = r"\d{1,6}[A-Za-z]?(?:[-/]\d{1,4}[A-Za-z]?)?"
_UNIT = r"(?:,?[ \n]{1,3}(?:apt|apartment|suite|ste|unit|flat|floor|room|rm|bldg|#)\.? ?#?\d{1,5}[A-Z]?)?"
_STATE = _any_of(STATES)
_TOWN = rf"(?:,?[ \n]{{1,3}}(?:{_WORD} ){{0,2}}{_WORD},[ \n]{{1,3}}(?:{_STATE})(?: \d{{5}}(?:-\d{{4}})?)?(?!\w))?"


def _is_street(text: str, before: str, after: str) -> bool:
    return not is_amount(before, "")


PLACES = (
    Recogniser(
        "street-number-first",
        "ADDRESS",
        re.compile(
            rf"(?<![\w.,$€£-]){_NUMBER},? (?:{_WORD} ){{1,4}}?(?i:{_any_of(KINDS)})(?!\w)\.?(?: (?:NW|NE|SW|SE|N|S|E|W)(?!\w))?"
            rf"(?i:{_UNIT}){_TOWN}"
        ),
        "a number, words and a kind of street",
        check=_is_street,
        broad=True,
    ),
    Recogniser(
        "street-number-last",
        "ADDRESS",
        re.compile(
            rf"(?<!\w)(?:{_WORD} ){{0,2}}?(?i:[^\W\d_]{{2,24}}(?:{_any_of(JOINED)})"
            rf"|[^\W\d_]{{2,24}} (?:str\.|{_any_of(JOINED)})) {_NUMBER}(?!\w)"
        ),
        "a name that ends like a street and a number",
        broad=True,
    ),
    Recogniser(
        "street-kind-first",
        "ADDRESS",
        re.compile(
            rf"(?<!\w)(?:{_NUMBER},? )?(?i:{_any_of(BEFORE)})\.? (?:{_WORD} ){{0,4}}?{_WORD},? (?:n[.º°] ?)?{_NUMBER}(?!\w)"
            rf"|(?<![\w.,-]){_NUMBER},? (?i:bis |ter )?(?:(?i:rue|avenue|boulevard|chemin|impasse|quai)"
            r"|(?i:place|via)(?= (?:[A-ZÀ-Ý]|d[aei])))"
            rf" (?:{_WORD}[ -]){{0,4}}{_WORD}"
        ),
        "a kind of street, a name and a number",
        LIKELY,
        broad=True,
    ),
    Recogniser(
        "street-without-number",
        "ADDRESS",
        re.compile(r"(?<![\w-])(?:[A-ZÀ-ÝĀ-Ž][\w'’-]{1,24} ){1,2}(?:Street|Avenue|Road|Lane|Boulevard|Blvd)(?!\w)"),
        "a capitalised name and a kind of street",
        LIKELY,
        signs=("street", "avenue", "road", "lane", "boulevard", "blvd"),
        digits=False,
        broad=True,
    ),
    Recogniser(
        "street-before-unit",
        "ADDRESS",
        re.compile(
            rf"(?<![\w.,$€£-]){_NUMBER},? (?:{_WORD} ){{0,5}}?{_WORD}(?: {_NUMBER})?"
            r",?[ \n]{1,3}(?i:apt|apartment|suite|ste)\.? ?#?\d{1,5}[A-Z]?(?!\w)"
        ),
        "a number and a name before an apartment or a suite",
        signs=("apt", "apartment", "suite", "ste"),
        broad=True,
    ),
    Recogniser(
        "military-address",
        "ADDRESS",
        re.compile(
            r"(?<!\w)(?i:(?:psc|cmr|unit) \d{1,5},? box \d{1,5}|us(?:s|ns|cgc|nv) [^\W\d_]{2,24})"
            r"(?i:[ \n]{1,3}[afd]po,? a[aep] \d{5}(?:-\d{4})?)?(?!\w)"
        ),
        "a unit or a ship of the US forces and its post office",
        signs=("box", "apo", "fpo", "dpo"),
        broad=True,
    ),
    Recogniser(
        "post-box",
        "ADDRESS",
        re.compile(r"(?<!\w)(?i:P\.? ?O\.? ?Box|Postfach|boîte postale) ?#?\d{1,6}(?!\w)"),
        "a post box and its number",
        signs=("box", "postfach", "postale"),
        broad=True,
    ),
    Recogniser(
        "unit",
        "ADDRESS",
        re.compile(r"(?<!\w)(?i:apt|apartment|suite|ste|flat)\.? ?#?\d{1,5}[A-Z]?(?!\w|[.,]\d)"),
        "an apartment or a suite and its number",
        LIKELY,
        signs=("apt", "apartment", "suite", "ste", "flat"),
        broad=True,
    ),
    Recogniser(
        "zip-after-state",
        "ZIP",
        re.compile(rf"(?<!\w)(?:{_STATE}),? {{1,2}}(?P<value>\d{{5}}(?:-\d{{4}})?)(?![\w-]|[.,]\d)"),
        "five digits after a state of the US",
        check=is_no_amount,
        broad=True,
    ),
    Recogniser(
        "zip-plus-four",
        "ZIP",
        re.compile(r"(?<![\w.,+$€£/-])(?<!\d\) )\d{5}-\d{4}(?![\w-]|[.,]\d)"),
        "five and four digits",
        check=is_no_amount,
        broad=True,
    ),
    Recogniser(
        "zip-by-words",
        "ZIP",
        after_words(
            r"zip(?: ?code)?|post(?:al)? ?code|plz|postleitzahl|code postal|cap",
            r"\d{4,6}(?:-\d{3,4})?|[A-Z]\d[A-Z] ?\d[A-Z]\d",
        ),
        "a number after words such as zip code",
        NAMED,
        signs=("zip", "post", "plz", "cap"),
        broad=True,
    ),
    Recogniser(
        "postcode-british",
        "ZIP",
        re.compile(r"(?<![\w-])(?:GIR ?0AA|[A-PR-UWYZ][A-HK-Y]?\d[\dA-HJKMNPR-Y]? \d[ABD-HJLNP-UW-Z]{2})(?![\w-])"),
        "the shape of a British postcode",
        broad=True,
    ),
    Recogniser(
        "postcode-canadian",
        "ZIP",
        re.compile(r"(?<![\w-])[ABCEGHJ-NPRSTVXY]\d[ABCEGHJ-NPRSTV-Z] \d[ABCEGHJ-NPRSTV-Z]\d(?![\w-])"),
        "the shape of a Canadian postal code",
        broad=True,
    ),
)
