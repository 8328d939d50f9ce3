"""All recognisers, in the order in which equal matches win."""

from __future__ import annotations

from finetune.scrub.accounts import ACCOUNTS
from finetune.scrub.contacts import CONTACTS
from finetune.scrub.dates import DATES
from finetune.scrub.labelled_numbers import LABELLED
from finetune.scrub.places import PLACES
from finetune.scrub.recogniser import CHECKED, Recogniser
from finetune.scrub.state_numbers import STATE_NUMBERS
from finetune.scrub.telephones import TELEPHONES

RECOGNISERS: tuple[Recogniser, ...] = (*CONTACTS, *TELEPHONES, *ACCOUNTS, *STATE_NUMBERS, *LABELLED, *DATES, *PLACES)
TAGGED = ("NAME", "LOCATION", "ORGANISATION", "ADDRESS")  # what taggers find
ENTITIES: tuple[str, ...] = tuple(dict.fromkeys([*(each.entity for each in RECOGNISERS), *TAGGED]))


def is_confirmed(entity: str, value: str) -> bool:
    """Whether a checksum says that a value is a valid number of its kind."""
    return any(each.entity == entity and each.score == CHECKED and each.confirms(value) for each in RECOGNISERS)
