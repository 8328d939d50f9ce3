"""Invented people, places, addresses and figures: what stands in the slots of templates.txt."""

from __future__ import annotations

import string
from random import Random

from words import (
    AFTER,
    BEFORE_TOWN,
    BOXES,
    CONSONANTS,
    DAYS,
    FIRST_ENDS,
    INSTITUTIONS,
    JOINED,
    KINDS,
    LAST_ENDS,
    LISTS,
    MONTHS,
    NATIONALITIES,
    PARTICLES,
    PREFIXED,
    QUIET_KINDS,
    SHARE_INVENTED,
    STATES,
    SUFFIXES,
    TITLES,
    TOWN_ENDS,
    UNITS,
    VOWELS,
    read_list,
)


class Values:
    """Random values of each kind."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lists = {path.stem: read_list(path.stem) for path in sorted(LISTS.glob("*.txt"))}
        self.lists["towns"] = [town for town in self.lists["towns"] if town]

    def one(self, name: str) -> str:
        """An entry of a list."""
        return self.random.choice(self.lists[name])

    def of(self, *choices: str) -> str:
        """One of some texts."""
        return self.random.choice(choices)

    def chance(self, share: float) -> bool:
        """True in this share of calls."""
        return self.random.random() < share

    def digits(self, pattern: str) -> str:
        """The pattern with a digit for each 9 and a capital for each A."""
        pick = self.random.choice
        return "".join(
            pick("0123456789") if c == "9" else pick(string.ascii_uppercase) if c == "A" else c for c in pattern
        )

    def invented(self, ends: list[str]) -> str:
        """A word that nobody has heard, with one of some endings."""
        syllables = [
            self.random.choice(CONSONANTS) + self.random.choice(VOWELS) for _ in range(self.random.choice((1, 1, 2)))
        ]
        stem = "".join(syllables) + self.random.choice(CONSONANTS)
        return (stem + self.random.choice(ends)).capitalize()

    # People

    def first(self) -> str:
        """A first name, rarely two."""
        name = self.invented(FIRST_ENDS) if self.chance(SHARE_INVENTED) else self.one("first_names")
        return f"{name}{self.of('-', ' ')}{self.one('first_names')}" if self.chance(0.04) else name

    def last(self) -> str:
        """A last name, with a particle or doubled in some."""
        name = self.invented(LAST_ENDS) if self.chance(SHARE_INVENTED) else self.one("last_names")
        if self.chance(0.08):
            particle = self.of(*PARTICLES)
            return particle + name if particle[-1] in "-'c " else f"{particle} {name}"
        return f"{name}{self.of('-', ' ')}{self.one('last_names')}" if self.chance(0.07) else name

    def initial(self) -> str:
        """A letter with a point."""
        return self.random.choice(string.ascii_uppercase) + self.of(".", ".", "")

    def full(self) -> str:
        """A first and a last name, as people write them."""
        first, last, form = self.first(), self.last(), self.random.random()
        if form < 0.72:
            name = f"{first} {last}"
        elif form < 0.79:
            name = f"{first} {self.initial()} {last}"
        elif form < 0.84:
            name = f"{self.initial()} {last}"
        elif form < 0.87:
            name = f"{self.initial()} {self.initial()} {last}"
        elif form < 0.92:
            name = f"{first} {self.first()} {last}"
        elif form < 0.96:
            name = f"{self.of(*TITLES)} {first} {last}"
        else:
            name = f"{first} {last}{self.of(' ', ', ')}{self.of(*SUFFIXES)}"
        return name.upper() if self.chance(0.03) else name

    def last_first(self) -> str:
        """A name as registers have it."""
        last = self.last()
        rest = self.of(self.first(), self.first(), f"{self.first()} {self.initial()}", self.initial())
        return f"{last.upper() if self.chance(0.3) else last}, {rest}"

    def titled(self) -> str:
        """A title and a name."""
        return f"{self.of(*TITLES)} {self.full() if self.chance(0.25) else self.last()}"

    def name(self) -> str:
        """A person in any form."""
        return self.of(self.full(), self.full(), self.first(), self.last(), self.titled())

    # Places

    def town(self) -> str:
        """A town of any country."""
        if self.chance(SHARE_INVENTED):
            town = self.invented(TOWN_ENDS)
            if self.chance(0.2):
                town = f"{self.of(*BEFORE_TOWN)} {town}"
            return town
        town = self.one("towns")
        return town.upper() if self.chance(0.08) else town

    def region(self) -> str:
        """A country, a state or an area."""
        return self.one("regions")

    def place(self) -> str:
        """A town or a region, or a town in a region."""
        return self.of(
            self.town(), self.town(), self.region(), f"{self.town()}, {self.of(self.region(), self.of(*STATES))}"
        )

    def street_only(self) -> str:
        """A street without a number."""
        stem, abroad = self.one("street_words"), self.one("streets_abroad")
        if self.chance(0.25):
            stem, abroad = self.last(), self.of(self.town(), self.last(), self.full(), self.first())
        form = self.random.random()
        if form < 0.4:
            second = f" {self.one('street_words')}" if self.chance(0.25) else ""
            return f"{self.of('', '', '', 'N. ', 'West ', 'Old ')}{stem}{second} {self.of(*KINDS)}"
        if form < 0.45:
            return f"{self.random.randint(1, 199)}th {self.of('Street', 'St', 'Avenue', 'Ave')}"
        if form < 0.65:
            return f"{abroad}{self.of(*JOINED)}" if self.chance(0.7) else f"{abroad} {self.of(*JOINED).capitalize()}"
        if form < 0.85:
            return f"{self.of(*PREFIXED)} {self.of('', '', 'de ', 'del ', 'della ', 'des ', 'do ')}{abroad}"
        if form < 0.95:
            return f"{abroad} {self.of(*AFTER)}"
        return f"{stem} {self.of(*QUIET_KINDS)}"

    def number(self) -> str:
        """The number of a house."""
        number = str(self.random.randint(1, self.random.choice((9, 99, 99, 999, 9999))))
        return number + self.of("", "", "", "", "", "", "", "a", "B", "/4", "-12", ".")

    def unit(self) -> str:
        """A flat, a suite or a floor."""
        return f"{self.of(*UNITS)} {self.random.randint(1, 999)}"

    def street(self) -> str:
        """A street and a number, a bare place with one, a post box, or a unit of an army."""
        form = self.random.random()
        if form < 0.45:
            street = f"{self.number()}{self.of(' ', ' ', ' ', ', ')}{self.street_only()}"
        elif form < 0.75:
            street = f"{self.street_only()}{self.of(' ', ' ', ' ', ', ', ', n.º ')}{self.number()}"
        elif form < 0.84:
            street = f"{self.of(self.town(), self.last(), self.one('streets_abroad'))} {self.random.randint(1, 299)}"
        elif form < 0.88:
            street = f"{self.of(*BOXES)} {self.random.randint(1, 9999)}"
        elif form < 0.91:
            street = (
                f"{self.of('PSC', 'Unit', 'CMR')} {self.digits('9999')}{self.of(' ', ', ')}Box {self.digits('9999')}"
            )
        elif form < 0.93:
            street = f"the corner of {self.street_only()} and {self.street_only()}"
        elif form < 0.96:
            street = f"{self.of('Flat', 'House', 'Plot', 'Block')} {self.number()}, {self.street_only()}"
        else:
            street = f"{self.number()} {self.street_only()} {self.number()}"
        return f"{street}{self.of(' ', ', ', chr(10), chr(10) + ' ')}{self.unit()}" if self.chance(0.25) else street

    def postcode(self) -> str:
        """A postal code."""
        return self.digits(
            self.of(
                "99999", "99999", "9999", "99999-9999", "99-999", "999 99", "9999 AA", "AA9 9AA", "A9A 9A9", "9999999"
            )
        )

    def address(self) -> str:
        """A whole address, in one line or several."""
        street, town, code = self.street(), self.town(), self.postcode()
        join = self.of(", ", ", ", "\n", "\n ", " ")
        form = self.random.random()
        if form < 0.1:
            return street
        if form < 0.3:
            tail = f"{town}{self.of(', ', ' ')}{self.of(*STATES)} {code}"
        elif form < 0.5:
            tail = f"{code} {town}"
        elif form < 0.62:
            tail = town
        elif form < 0.75:
            tail = f"{town}{self.of(', ', ' ', join)}{code}"
        else:
            gap = self.of(", ", " ", join, f", {self.digits('AA')} ")
            tail = f"{town}{gap}{self.region()}{self.of('', f' {code}', f', {code}')}"
        if self.chance(0.15):
            tail += f"{join}{self.region()}"
        return f"{street}{join}{tail}"

    # Everything else

    def org(self) -> str:
        """An organisation, often named after people or places."""
        last, town = self.last(), self.town()
        forms = (
            self.one("organisations"),
            self.one("organisations"),
            f"{last} {self.of('Ltd', 'Inc', 'LLC', 'GmbH', 'PLC', 'Group', '& Sons', 'Ltd.')}",
            f"{last} {self.of('&', 'and')} {self.last()}",
            f"{last}, {self.last()} and {self.last()}",
            f"University of {town}",
            f"{town} {self.of(*INSTITUTIONS)}",
            f"Bank of {self.region()}",
            f"St. {self.first()}'s Hospital",
            f"{self.one('street_words')} {self.of('Capital', 'Systems', 'Foods', 'Health')}",
            self.invented(["ly", "ify", "ia", "ex", "tech", "soft", "corp", "pharm"]),
        )
        return self.random.choice(forms)

    def date(self) -> str:
        """A date in one of many forms."""
        day, month, year = self.random.randint(1, 28), self.random.randint(1, 12), self.random.randint(1930, 2026)
        word = MONTHS[month - 1]
        return self.of(
            f"{month}/{day}/{year}",
            f"{day:02}.{month:02}.{year}",
            f"{year}-{month:02}-{day:02}",
            f"{word} {day}, {year}",
            f"{day} {word} {year}",
            f"{word} {day}",
            f"{day} {word[:3]}",
            f"{word} {year}",
            str(year),
        )

    def amount(self) -> str:
        """A sum of money or a figure."""
        number = f"{self.random.randint(1, 99999):,}"
        return self.of(
            f"${number}",
            f"€{number}",
            f"{number} USD",
            f"£{number}.50",
            f"{number} EUR",
            f"${number[:3]} million",
            f"{number}",
        )

    def phone(self) -> str:
        """A telephone number."""
        return self.digits(
            self.of("999-999-9999", "(999) 999-9999", "+99 99 9999 9999", "999 9999", "099 999 99 99", "99 99 99 99")
        )

    def email(self) -> str:
        """An address at a domain for examples, with a name before it."""
        return f"{self.first().lower()}{self.of('.', '_', '')}{self.last().lower()}@example.{self.of('com', 'org')}".replace(
            " ", ""
        )

    def plain(self, slot: str) -> str:
        """The value of a slot that holds nothing to be found."""
        lists = {"drug": "medicines", "condition": "conditions", "thing": "things", "job": "jobs"}
        if slot in lists:
            return self.one(lists[slot])
        if slot == "initials":
            return self.digits(self.of("AA", "A", "A.A.", "AAA"))
        patterns = {
            "card": "4999 9999 9999 9999",
            "iban": "DE99 9999 9999 9999 9999 99",
            "code": self.of("A-99999", "999999", "AA999", "99-9999"),
            "ip": "85.99.99.99",
            "url": "https://www.example.com/a999",
            "time": self.of("19:99", "9:99", "9 pm", "19:99:99"),
        }
        if slot in patterns:
            return self.digits(patterns[slot])
        if slot in {"n", "age"}:
            return str(self.random.randint(1, 99))
        if slot in {"month", "day", "nationality"}:
            return self.of(*{"month": MONTHS, "day": DAYS, "nationality": NATIONALITIES}[slot])
        return str(getattr(self, slot)())
