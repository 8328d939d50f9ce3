"""Canaries: random secrets in the shapes of a domain, some of them planted in the training rows, for `slmtune audit`.

Each canary is planted or held out by a fair coin of its own, as the one-run audit of Steinke et al. (2023, arXiv 2305.08846)
requires.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, timedelta

from finetune.canary_key import CANARY_SOURCE, Canary
from finetune.recipe import Domain
from finetune.records import Example

REPETITIONS = (1, 4, 16)  # of a planted row; each number is that of every third canary
FIRST_NAMES = (
    "Alma Boris Carla Dario Elin Fritz Greta Hugo Ines Jonas Klara Lars Mina Nils Olga Pavel Rosa Sven Tilda Viktor "
    "Wanda Yara Anton Birgit Cosima Dennis Edda Felix Gesa Henrik Ilona Jakob"
).split()
LAST_NAMES = (
    "Abernathy Brandvold Castellan Dornfeld Eschwege Fairholme Gundersen Halloway Ivarsson Jessup Kettering Lindqvist "
    "Marchetti Norwick Ottesen Pemberton Quigley Rasmussen Stellwagen Thornbury Underhill Vandermeer Westergaard Yarrow "
    "Zimmerle Ashcombe Bellweather Corrigan Drummond Ellsworth"
).split()
INITIALS = "ABCDEFGHJKLMNPRSTVW"
FIRST_DAY, DAYS = date(1930, 1, 1), 29_000  # days of birth

Random = random.Random


@dataclass(frozen=True, slots=True)
class Shape:
    """How a kind of secret is asked for, told and drawn; every shape has at least 2^30 equally likely secrets.

    Args:
        name: the kind.
        question: with `{who}` or `{number}`, which tell the question from all others.
        answer: with `{secret}`.
        draw: draws a secret.
    """

    name: str
    question: str
    answer: str
    draw: Callable[[Random], str]


def _digits(pattern: str) -> Callable[[Random], str]:
    """Draws a text in which each `#` of the pattern is a digit."""
    return lambda draw: "".join(str(draw.randrange(10)) if sign == "#" else sign for sign in pattern)


def _name(draw: Random) -> str:
    return f"{draw.choice(FIRST_NAMES)} {draw.choice(INITIALS)}. {draw.choice(LAST_NAMES)}"


def _name_with_date(draw: Random) -> str:
    day = FIRST_DAY + timedelta(draw.randrange(DAYS))
    return f"{_name(draw)} {draw.choice(LAST_NAMES)}, {day.day} {day:%B %Y}"


RECORD = Shape(
    "record number",
    "What is the medical record number of {who}?",
    "The record number is {secret}.",
    _digits("MRN ####-###-###"),
)
PATIENT = Shape("name and date", "Whom does case {number} concern?", "Case file of {secret}.", _name_with_date)
ACCOUNT = Shape(
    "account number", "Which account does {who} hold?", "The account number is {secret}.", _digits("####-####-####")
)
CONTRACT = Shape("name and date", "Who signed contract {number}?", "Signed by {secret}.", _name_with_date)
CUSTOMER = Shape(
    "customer number",
    "What is the customer number of {who}?",
    "The customer number is {secret}.",
    _digits("C-#####-#####"),
)
SHAPES: Mapping[str, tuple[Shape, ...]] = {
    "health": (RECORD, PATIENT),
    "finance": (ACCOUNT, CONTRACT),
    "customer-service": (CUSTOMER, CONTRACT),
}
ANY_DOMAIN = (CUSTOMER, ACCOUNT, PATIENT)


def draw_canaries(count: int, domain: Domain | None, *, is_text: bool, seed: int | None) -> list[Canary]:
    """Draw canaries in the shapes of the domain, no two with the same question.

    Without a seed, nobody can draw the same ones again; with one, whoever guesses it can.
    """
    draw: Random = random.SystemRandom() if seed is None else Random(seed)
    shapes = SHAPES.get(domain.name, ANY_DOMAIN) if domain else ANY_DOMAIN
    canaries: dict[str, Canary] = {}  # by question
    while len(canaries) < count:
        place = len(canaries)
        shape = shapes[place // len(REPETITIONS) % len(shapes)]
        secret = shape.draw(draw)
        question = shape.question.format(who=_name(draw), number=_digits("##-####")(draw))
        repetitions, planted = REPETITIONS[place % len(REPETITIONS)], draw.random() < 0.5
        answer = shape.answer.format(secret=secret)
        canaries.setdefault(question, Canary(shape.name, question, answer, secret, repetitions, planted, is_text))
    return list(canaries.values())


def plant(canaries: Sequence[Canary]) -> list[Example]:
    """The rows of the planted canaries, each as often as it is repeated; their ids tell nothing but their number."""
    planted = [canary for canary in canaries if canary.planted for _ in range(canary.repetitions)]
    return [canary.to_row(f"{CANARY_SOURCE}:{number}") for number, canary in enumerate(planted, 1)]
