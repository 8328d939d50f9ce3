"""Invented places and addresses: towns, regions, streets, and whole addresses in the forms of addresses.txt."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from people import People
from picker import Picker
from words import (
    AFTER,
    ARMY,
    BEFORE_TOWN,
    BOXES,
    COMPASS,
    HUNGARIAN,
    JOINED,
    KINDS,
    NONE,
    PREFIXED,
    PROVINCES,
    QUIET_KINDS,
    SHARE_INVENTED,
    STATES,
    TOWN_ENDS,
    UNITS,
)

FORMS = Path(__file__).with_name("addresses.txt")
SHARE_FORMS = 0.5  # of addresses; the others are put together at random
PART = re.compile(r"\{([a-z]+)\}|<([^>]+)>")


class Places:
    """Random places and addresses."""

    def __init__(self, pick: Picker, people: People) -> None:
        self.pick, self.people = pick, people
        lines = FORMS.read_text("utf-8").splitlines()
        self.forms = [line for line in lines if line and not line.startswith("#")]
        choices = {"state": STATES, "province": PROVINCES, "aussie": ("NSW", "VIC", "QLD", "WA", "SA", "TAS", "ACT")}
        choices |= {"army": ARMY, "compass": COMPASS, "box": BOXES, "none": NONE}
        self.parts: dict[str, Callable[[], str]] = {
            **{slot: (lambda texts=texts: pick.of(*texts)) for slot, texts in choices.items()},
            **{each.__name__: each for each in (self.town, self.region, self.street, self.unit, self.crossing)},
            **{each.__name__: each for each in (self.english, self.joined, self.prefixed, self.ordinal)},
            **{each.__name__: each for each in (self.slavic, self.hungarian, people.first, people.last)},
            "n": self.number,
            "house": lambda: pick.of(self.pick.one("street_words"), people.last(), people.first()),
            "greek": lambda: pick.one("streets_greek"),
        }

    def town(self) -> str:
        """A town of any country."""
        pick = self.pick
        if pick.chance(SHARE_INVENTED):
            town = pick.invented(TOWN_ENDS)
            town = f"{pick.of(*BEFORE_TOWN)} {town}" if pick.chance(0.2) else town
        else:
            town = pick.one("towns")
        return town.upper() if pick.chance(0.1) else town

    def region(self) -> str:
        """A country, a state or an area."""
        return self.pick.one("regions")

    def place(self) -> str:
        """A town or a region, or a town in a region."""
        pick = self.pick
        wide = self.region() if pick.chance(0.8) else pick.one("areas")
        return pick.of(self.town(), self.town(), wide, f"{self.town()}, {pick.of(self.region(), pick.of(*STATES))}")

    def english(self) -> str:
        """A street as English has it."""
        pick = self.pick
        stem = (
            pick.one("street_words")
            if pick.chance(0.6)
            else pick.of(self.people.last(), self.people.full(), self.town())
        )
        second = f" {pick.one('street_words')}" if pick.chance(0.2) else ""
        kind = pick.of(*QUIET_KINDS) if pick.chance(0.12) else pick.of(*KINDS)
        return f"{pick.of('', '', '', '', 'N. ', 'West ', 'Old ')}{stem}{second} {kind}"

    def ordinal(self) -> str:
        """A numbered street."""
        number = self.pick.count(199)
        end = {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th") if number % 100 not in (11, 12, 13) else "th"
        return f"{number}{end} {self.pick.of('Street', 'St', 'Avenue', 'Ave')}"

    def joined(self) -> str:
        """A street of a Germanic language."""
        pick = self.pick
        stem = self._abroad()
        return f"{stem}{pick.of(*JOINED)}" if pick.chance(0.7) else f"{stem} {pick.of(*JOINED).capitalize()}"

    def prefixed(self) -> str:
        """A street of a Romance language."""
        article = self.pick.of("", "", "de ", "del ", "della ", "des ", "do ", "dei ", "de la ")
        return f"{self.pick.of(*PREFIXED)} {article}{self._abroad()}"

    def slavic(self) -> str:
        """A street without its kind, as in central Europe."""
        return self._abroad()

    def hungarian(self) -> str:
        """A street of Hungary."""
        return f"{self._abroad()} {self.pick.of(*HUNGARIAN)}"

    def crossing(self) -> str:
        """A street whose name stands alone, as where two cross."""
        return self.pick.of(self.people.first(), self.people.last(), self.pick.one("street_words"), self.ordinal())

    def street_only(self) -> str:
        """A street without a number."""
        form = self.pick.random.random()
        if form < 0.45:
            return self.english()
        if form < 0.5:
            return self.ordinal()
        if form < 0.68:
            return self.joined()
        if form < 0.86:
            return self.prefixed()
        if form < 0.9:
            return self.pick.one("streets_greek")
        return f"{self._abroad()} {self.pick.of(*AFTER)}"

    def number(self) -> str:
        """The number of a house."""
        number = str(self.pick.count(self.pick.random.choice((9, 99, 99, 999, 9999))))
        number = f"0{number}" if len(number) == 1 and self.pick.chance(0.2) else number
        return number + self.pick.of("", "", "", "", "", "", "", "a", "B", "/4", "-12", ".")

    def unit(self) -> str:
        """A flat, a suite or a floor."""
        return f"{self.pick.of(*UNITS)} {self.pick.count(999)}"

    def street(self) -> str:
        """A street and a number, a bare place with one, a post box, or a unit of an army."""
        pick, form = self.pick, self.pick.random.random()
        if form < 0.42:
            street = f"{self.number()}{pick.of(' ', ' ', ' ', ', ')}{self.street_only()}"
        elif form < 0.7:
            street = f"{self.street_only()}{pick.of(' ', ' ', ' ', ', ', ', n.º ')}{self.number()}"
        elif form < 0.79:
            street = f"{pick.of(self.town(), self.people.last(), pick.one('streets_abroad'))} {pick.count(299)}"
        elif form < 0.84:
            street = f"{pick.of('', '', f'{pick.count(99)} ')}{pick.of(*BOXES)} {pick.count(9999)}"
        elif form < 0.87:
            street = pick.of("PSC", "Unit", "CMR") + pick.digits(pick.of(" 9999, Box 9999", " 9999 Box 9999"))
        elif form < 0.92:
            street = pick.of(
                f"the corner of {self.street_only()} and {self.street_only()}",
                f"{self.crossing()} and {self.street_only()}",
                f"{self.crossing()} {pick.of('and', '&')} {self.number()} {self.street_only()}",
                f"{self.crossing()} and {self.street_only()} {self.number()}",
            )
        elif form < 0.95:
            street = f"{pick.of('Flat', 'House', 'Plot', 'Block')} {self.number()}, {self.street_only()}"
        else:
            street = f"{self.number()} {self.street_only()} {self.number()}"
        return f"{street}{pick.of(' ', ', ', chr(10), chr(10) + ' ')}{self.unit()}" if pick.chance(0.25) else street

    def postcode(self) -> str:
        """A postal code."""
        form = "99999 99999 9999 99999-9999 99-999 999_99 9999_AA AA9_9AA A99_9AA A9A_9A9 9999999 999-9999".split()
        return self.pick.digits(self.pick.of(*form)).replace("_", " ")

    def address(self) -> str:
        """A whole address, in one line or several."""
        if self.pick.chance(SHARE_FORMS):
            return self.fill(self.pick.of(*self.forms))
        pick, street, town, code = self.pick, self.street(), self.town(), self.postcode()
        join = pick.of(", ", ", ", "\n", "\n ", " ")
        form = pick.random.random()
        if form < 0.1:
            return street
        if form < 0.3:
            tail = f"{town}{pick.of(', ', ' ')}{pick.of(*STATES)} {code}"
        elif form < 0.5:
            tail = f"{code} {town}"
        elif form < 0.62:
            tail = town
        elif form < 0.75:
            tail = f"{town}{pick.of(', ', ' ', join)}{code}"
        else:
            gap = pick.of(", ", " ", join, f", {pick.digits('AA')} ", f"{join}, {pick.digits('AA')}{join}")
            tail = f"{town}{gap}{self.region()}{pick.of('', f' {code}', f', {code}')}"
        if pick.chance(0.15):
            tail += f"{join}{self.region()}"
        return f"{street}{join}{tail}"

    def fill(self, form: str) -> str:
        """An address in a form of addresses.txt."""
        pick = self.pick
        text = PART.sub(lambda match: self.parts[match[1]]() if match[1] else pick.digits(match[2]), form)
        text = f"{text}|{self.region()}" if pick.chance(0.15) else text
        return text.replace("|", pick.of(", ", ", ", "\n", "\n", "\n ", " "))

    def _abroad(self) -> str:
        if self.pick.chance(0.7):
            return self.pick.one("streets_abroad")
        people = self.people
        return self.pick.of(self.town(), people.last(), people.full(), people.first())
