"""What stands in the slots of templates.txt: invented people and places, and everything that is neither."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from people import People
from picker import Picker
from places import Places
from words import (
    BRAND_ENDS,
    BUSINESSES,
    CONDITION_ENDS,
    DASHES,
    DAYS,
    DRUG_ENDS,
    EPONYMS,
    INSTITUTIONS,
    MONTHS,
    NATIONALITIES,
    WORK_ENDS,
)

LABELS = {
    **dict.fromkeys(("name", "full", "first", "last", "last_first", "titled"), "NAME"),
    **dict.fromkeys(("town", "country", "region", "area", "place"), "LOCATION"),
    **dict.fromkeys(("address", "street", "street_only"), "ADDRESS"),
    **dict.fromkeys(("org", "band"), "ORGANISATION"),
}
LISTED = {"thing": "things", "job": "jobs", "spot": "spots", "noun": "nouns", "adj": "adjectives"}
LISTED |= {"did": "verbs", "product": "products", "area": "areas"}
WRITTEN = {"card": "4999 9999 9999 9999", "iban": "DE99 9999 9999 9999 9999 99", "ip": "85.99.99.99"}
WRITTEN |= {"url": "https://www.example.com/a999"}


class Values:
    """Random values of each slot."""

    def __init__(self, random: Random) -> None:
        self.pick = pick = Picker(random)
        self.people = people = People(pick)
        self.places = places = Places(pick, people)
        methods: tuple[Callable[[], str], ...] = (
            *(people.name, people.full, people.first, people.last, people.last_first, people.titled),
            *(places.town, places.region, places.place, places.address, places.street, places.street_only),
            *(
                places.postcode,
                self.role,
                self.org,
                self.band,
                self.work,
                self.brand,
                self.drug,
                self.condition,
                self.date,
            ),
            *(self.amount, self.phone, self.email),
        )
        choices = {"month": MONTHS, "day": DAYS, "nationality": NATIONALITIES, "dash": DASHES}
        choices |= {"code": ("A-99999", "999999", "AA999", "99-9999"), "time": ("19:99", "9:99", "9 pm", "19:99:99")}
        choices |= {"initials": ("AA", "A", "A.A.", "AAA")}
        drawn = {"code", "time", "initials"}
        self.slots: dict[str, Callable[[], str]] = {
            **{each.__name__: each for each in methods},
            **{slot: (lambda name=name: pick.one(name)) for slot, name in LISTED.items()},
            **{slot: (lambda form=form: pick.digits(form)) for slot, form in WRITTEN.items()},
            **{slot: (lambda texts=texts: pick.of(*texts)) for slot, texts in choices.items() if slot not in drawn},
            **{slot: (lambda slot=slot: pick.digits(pick.of(*choices[slot]))) for slot in drawn},
            "country": places.region,
            "n": lambda: str(pick.count(99)),
            "age": lambda: str(pick.count(99)),
        }

    def role(self) -> str:
        """What somebody is, in capitals if it is meant as an office."""
        role = self.pick.one("roles")
        return role.title() if self.pick.chance(0.12) else role

    def org(self) -> str:
        """An organisation, often named after people or places."""
        pick, last, town = self.pick, self.people.last(), self.places.town()
        forms = (
            pick.one("organisations"),
            pick.one("organisations"),
            pick.one("organisations"),
            f"{last} {pick.of('Ltd', 'Inc', 'LLC', 'GmbH', 'PLC', 'Group', '& Sons', 'Ltd.', 'Inc.', 'Corp.', 'S.p.A.', 'AB')}",
            f"{last}-{self.people.last()}",
            f"{last} {pick.of('&', 'and')} {self.people.last()}",
            f"{last}, {self.people.last()} and {self.people.last()}",
            f"{self.people.name()} {pick.of('Foundation', 'Institute', 'Trust', 'School', 'Museum', 'Prize Committee')}",
            f"{self.people.first()}'s {pick.of(*BUSINESSES)}",
            f"{pick.of(last, town)} {pick.of(*BUSINESSES)}",
            f"University of {town}",
            f"{town} {pick.of(*INSTITUTIONS)}",
            f"{pick.of('FC', 'SV', 'Real', 'Hotel', 'Radio', 'Port of', 'Diocese of', 'City of')} {town}",
            f"Bank of {self.places.region()}",
            f"{pick.of('Department', 'Ministry', 'Office', 'Institute')} of {pick.one('nouns').title()}",
            f"{pick.of('St.', 'Saint')} {self.people.first()}'s {pick.of('Hospital', 'Church', 'School')}",
            f"{pick.one('street_words')} {pick.of('Capital', 'Systems', 'Foods', 'Health', 'Partners', 'Energy')}",
            f"{pick.one('adjectives').title()} {pick.one('nouns').title()} {pick.of(*BUSINESSES)}",
            pick.invented(BRAND_ENDS),
        )
        return pick.random.choice(forms)

    def band(self) -> str:
        """A band, a club or a brand that does what people do."""
        pick, noun = self.pick, self.pick.one("nouns").title()
        forms = (
            pick.one("organisations"),
            f"the {pick.of(noun, pick.one('adjectives').title() + ' ' + noun)}s",
            f"{pick.one('adjectives').title()} {noun}",
            f"{noun} {pick.one('nouns').title()}",
            pick.invented(BRAND_ENDS + WORK_ENDS),
        )
        return pick.random.choice(forms)

    def work(self) -> str:
        """The title of a song, a film or a book."""
        pick = self.pick
        noun, other = pick.one("nouns").title(), pick.one("nouns").title()
        adjective, did = pick.one("adjectives").title(), pick.one("verbs").title()
        forms = (
            f"{adjective} {noun}",
            f"The {adjective} {noun}",
            f"{noun} of the {other}",
            f"{noun} {other} {pick.one('nouns').title()}",
            f"{noun} and {other}",
            f"{noun} in the {other}",
            f"She {did} the {noun}",
            f"Who {did} My {noun}?",
            f"{noun} {pick.of('II', '3', 'Returns', 'Forever', 'Blues', 'Boulevard')}",
            f"{pick.of('My', 'Your', 'No', 'Goodbye', 'Hello')} {adjective} {noun}",
            noun,
            pick.invented(WORK_ENDS),
            pick.one("products"),
        )
        return pick.random.choice(forms)

    def brand(self) -> str:
        """A product that nobody has heard of."""
        pick = self.pick
        return pick.of(
            pick.invented(BRAND_ENDS), f"{pick.one('adjectives').title()}{pick.one('nouns')}", pick.one("things")
        )

    def drug(self) -> str:
        """A medicine, known or invented."""
        pick = self.pick
        return (
            pick.one("medicines")
            if pick.chance(0.7)
            else pick.of(pick.invented(DRUG_ENDS), pick.invented(DRUG_ENDS).lower())
        )

    def condition(self) -> str:
        """A disease, a sign or a test, often named after somebody."""
        pick, form = self.pick, self.pick.random.random()
        if form < 0.65:
            return pick.one("conditions")
        if form < 0.8:
            last = self.people.last()
            who = pick.of(last, f"{last}'s", f"{last}-{self.people.last()}")
            return f"{who} {pick.of(*EPONYMS)}"
        name = pick.invented(CONDITION_ENDS)
        return pick.of(name, name.lower(), f"{pick.one('adjectives')} {name.lower()}")

    def date(self) -> str:
        """A date in one of many forms."""
        pick = self.pick
        day, month, year = pick.count(28), pick.count(12), pick.random.randint(1930, 2026)
        word = MONTHS[month - 1]
        return pick.of(
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
        number = f"{self.pick.count(99999):,}"
        forms = (
            f"${number}",
            f"€{number}",
            f"{number} USD",
            f"£{number}.50",
            f"{number} EUR",
            f"${number[:3]} million",
        )
        return self.pick.of(*forms, number)

    def phone(self) -> str:
        """A telephone number."""
        forms = ("999-999-9999", "(999) 999-9999", "+99 99 9999 9999", "999 9999", "099 999 99 99", "99 99 99 99")
        return self.pick.digits(self.pick.of(*forms))

    def email(self) -> str:
        """An address at a domain for examples, with a name before it."""
        pick, people = self.pick, self.people
        text = f"{people.first().lower()}{pick.of('.', '_', '')}{people.last().lower()}@example.{pick.of('com', 'org')}"
        return text.replace(" ", "")
