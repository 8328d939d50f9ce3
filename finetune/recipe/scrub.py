"""What a recipe says about personal data: what to look for beside the built-in kinds, and what becomes of it."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from finetune.recipe.strict import Strict
from finetune.recipe.values import Names

Policy = Literal["tag", "mask", "surrogate", "drop"]
IDENTIFIERS, EVERYTHING = "identifiers", "all"  # what `find` may say beside names of kinds


def _check_name(name: str) -> str:
    if not re.fullmatch(r"[A-Z][A-Z0-9_]{1,29}", name):
        raise ValueError("the name of a kind consists of capitals, digits and _, such as CASE_NUMBER")
    return name


def _check_format(pattern: str) -> str:
    try:
        compiled = re.compile(pattern)
    except re.error as error:
        raise ValueError(f"not a regular expression of Python ({error})") from None
    if compiled.match(""):
        raise ValueError("the regular expression also matches nothing; it must match at least one character")
    return pattern


Kind = Annotated[str, AfterValidator(_check_name)]


class ScrubRecipe(Strict):
    """A project's own rules; what is not set here follows the command."""

    policy: Policy | None = Field(None, description="What becomes of personal data; else tag.")
    find: Names | None = Field(None, description=f"{IDENTIFIERS}, {EVERYTHING}, or names of kinds.")
    lists: dict[Kind, str] = Field(
        default_factory=dict, description="Kind -> file, relative to the recipe, with a word or phrase per line."
    )
    formats: dict[Kind, Annotated[str, AfterValidator(_check_format)]] = Field(
        default_factory=dict, description="Kind -> regular expression of Python."
    )
    allow: tuple[str, ...] = Field((), description="Words, phrases and numbers that are never personal data.")
    tagger: str | None = Field(
        None, description="What finds names and places: own, the folder of a tagger, or a spaCy model."
    )
