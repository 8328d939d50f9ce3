"""The rules of a scrub: which kinds to find, a project's own lists and formats, and what becomes of what is found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from finetune.errors import ConfigError, did_you_mean
from finetune.recipe import Domain
from finetune.recipe.options import SEED
from finetune.recipe.scrub import EVERYTHING, IDENTIFIERS, Policy, ScrubRecipe
from finetune.scrub.recognisers import ENTITIES, RECOGNISERS, TAGGED

NOTHING = ScrubRecipe()


@dataclass(frozen=True)
class Rules:
    """What to find and what to do about it.

    `recognisers` and `entities` are the names of those that are on; `lists` are phrases by kind, `formats` regular
    expressions by kind, `allow` phrases that are never personal data, in lower case, and `tagger` is the name of one.
    """

    policy: Policy = "tag"
    recognisers: frozenset[str] = frozenset(each.name for each in RECOGNISERS if not each.broad)
    entities: frozenset[str] = frozenset(TAGGED)
    lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    formats: Mapping[str, str] = field(default_factory=dict)
    allow: frozenset[str] = frozenset()
    tagger: str | None = None
    seed: int = SEED


def make_rules(
    domain: Domain | None,
    *,
    policy: Policy | None,
    find: str | None,
    otherwise: str,
    tagger: str | None = None,
    seed: int = SEED,
) -> Rules:
    """The rules that flags, the recipe of a domain and the defaults of a command give, in this order.

    Args:
        policy: the flag; None: the recipe's, else tag.
        find: the flag, `identifiers`, `all` or kinds with commas between them; None: the recipe's.
        otherwise: what to find if neither says it.

    Raises:
        ConfigError: a kind does not exist, or a list of the recipe cannot be read.
    """
    recipe = (domain.recipe.scrub if domain else None) or NOTHING
    wanted = tuple(part.strip() for part in find.split(",")) if find is not None else recipe.find or (otherwise,)
    recognisers, entities = _chosen(wanted, [*ENTITIES, *recipe.lists, *recipe.formats])
    return Rules(
        policy=policy or recipe.policy or "tag",
        recognisers=recognisers,
        entities=entities,
        lists={kind: _read_list(domain.folder / name) for kind, name in recipe.lists.items()} if domain else {},
        formats=recipe.formats,
        allow=frozenset(phrase.casefold() for phrase in recipe.allow),
        tagger=tagger or recipe.tagger,
        seed=seed,
    )


def _chosen(wanted: Sequence[str], known: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """The names of the recognisers and the kinds of the tagger that are asked for."""
    words = {name.lower() for name in wanted} & {EVERYTHING, IDENTIFIERS}
    kinds = {name.upper() for name in wanted if name.lower() not in words}
    unknown = sorted(kinds - set(known))
    if unknown:
        hint = did_you_mean(unknown[0], [*known, IDENTIFIERS, EVERYTHING])
        raise ConfigError("find", [f"there is no kind of personal data {unknown[0]!r}. {hint}"])
    recognisers = frozenset(
        each.name
        for each in RECOGNISERS
        if EVERYTHING in words or (IDENTIFIERS in words and not each.broad) or each.entity in kinds
    )
    return recognisers, frozenset(TAGGED if words else kinds & set(TAGGED))


def _read_list(path: Path) -> tuple[str, ...]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "not UTF-8"
        raise ConfigError(
            str(path), [f"the list cannot be read ({reason}). Write a text file, one phrase per line"]
        ) from None
    return tuple(phrase for line in lines if (phrase := line.strip()))
