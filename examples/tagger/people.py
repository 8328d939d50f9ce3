"""Invented people: names of many languages in the forms that people write."""

from __future__ import annotations

import string

from picker import Picker
from words import FIRST_ENDS, LAST_ENDS, PARTICLES, SHARE_INVENTED, SUFFIXES, TITLES


class People:
    """Random names."""

    def __init__(self, pick: Picker) -> None:
        self.pick = pick

    def first(self) -> str:
        """A first name, rarely two."""
        pick = self.pick
        name = pick.invented(FIRST_ENDS) if pick.chance(SHARE_INVENTED) else pick.one("first_names")
        return f"{name}{pick.of('-', ' ')}{pick.one('first_names')}" if pick.chance(0.04) else name

    def last(self) -> str:
        """A last name, with a particle or doubled in some."""
        pick = self.pick
        name = pick.invented(LAST_ENDS) if pick.chance(SHARE_INVENTED) else pick.one("last_names")
        if pick.chance(0.08):
            particle = pick.of(*PARTICLES)
            return particle + name if particle[-1] in "-'c " else f"{particle} {name}"
        return f"{name}{pick.of('-', ' ')}{pick.one('last_names')}" if pick.chance(0.07) else name

    def initial(self) -> str:
        """A letter with a point."""
        return self.pick.random.choice(string.ascii_uppercase) + self.pick.of(".", ".", "")

    def full(self) -> str:
        """A first and a last name, as people write them."""
        pick, first, last, form = self.pick, self.first(), self.last(), self.pick.random.random()
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
            name = f"{pick.of(*TITLES)} {first} {last}"
        else:
            name = f"{first} {last}{pick.of(' ', ', ')}{pick.of(*SUFFIXES)}"
        return name.upper() if pick.chance(0.03) else name

    def last_first(self) -> str:
        """A name as registers have it."""
        last, pick = self.last(), self.pick
        rest = pick.of(self.first(), self.first(), f"{self.first()} {self.initial()}", self.initial())
        return f"{last.upper() if pick.chance(0.3) else last}, {rest}"

    def titled(self) -> str:
        """A title and a name."""
        return f"{self.pick.of(*TITLES)} {self.full() if self.pick.chance(0.25) else self.last()}"

    def name(self) -> str:
        """A person in any form."""
        return self.pick.of(self.full(), self.full(), self.first(), self.last(), self.titled())
