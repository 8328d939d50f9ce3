"""The licence of a corpus made from sources under several licences. An aid, not legal advice.

Licences are the Hub's identifiers (https://huggingface.co/docs/hub/repositories-licenses), ordered by what they require
of anyone who passes on data made from them:

    public domain < permissive < attribution < share-alike < non-commercial < non-commercial and share-alike < unknown

A corpus is an adaptation of its sources, so data that may not be adapted (no derivatives) cannot be part of one. A
share-alike licence covers the whole corpus and so excludes a second one, and a ban on commercial use.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from finetune.errors import InputError

UNKNOWN = "unknown"
PUBLIC_DOMAIN, PERMISSIVE, ATTRIBUTION, SHARE_ALIKE, NONCOMMERCIAL, NONCOMMERCIAL_SHARE_ALIKE, NOT_KNOWN = range(7)

# Within a level, later means stricter: naming authors and changes comes after keeping a notice.
LEVELS: dict[int, tuple[str, ...]] = {
    PUBLIC_DOMAIN: ("cc0-1.0", "pddl", "unlicense", "wtfpl"),
    PERMISSIVE: (
        *("zlib", "bsl-1.0", "isc", "postgresql", "mit", "ncsa", "bsd", "bsd-2-clause", "bsd-3-clause"),
        *("bsd-3-clause-clear", "ms-pl", "artistic-2.0", "ecl-2.0", "afl-3.0", "apache-2.0", "openmdw-1.0"),
        *("c-uda", "cdla-permissive-2.0", "cdla-permissive-1.0"),
    ),
    ATTRIBUTION: ("etalab-2.0", "odc-by", "cc-by-2.0", "cc-by-2.5", "cc-by-3.0", "cc-by-4.0"),
    SHARE_ALIKE: (
        *("cc-by-sa-2.0", "cc-by-sa-3.0", "cc-by-sa-4.0", "cdla-sharing-1.0", "odbl", "gfdl", "ofl-1.1", "lppl-1.3c"),
        *("mpl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "osl-3.0", "lgpl", "lgpl-2.1", "lgpl-3.0"),
        *("lgpl-lr", "gpl", "gpl-2.0", "gpl-3.0", "agpl-3.0"),
    ),
    NONCOMMERCIAL: (
        *("cc-by-nc-2.0", "cc-by-nc-3.0", "cc-by-nc-4.0", "h-research", "intel-research", "apple-amlr"),
        "fair-noncommercial-research-license",
    ),
    NONCOMMERCIAL_SHARE_ALIKE: ("cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "cc-by-nc-sa-4.0"),
}
RANKS = {name: (level, position) for level, names in LEVELS.items() for position, name in enumerate(names)}
SHARING = (SHARE_ALIKE, NONCOMMERCIAL_SHARE_ALIKE)
UPGRADES = re.compile(r"(cc-by-(?:nc-)?sa)-[2-4]\.\d")  # each allows a later version of itself instead
NO_DERIVATIVES = re.compile(r"(?:^|-)nd(?:-|$)")
FORBIDS_COMMERCE = re.compile(r"(?:^|[-_ ])nc(?:[-_ ]|$)|non-?commercial", re.I)


@dataclass(frozen=True, order=True)
class _License:
    level: int
    position: int
    id: str


def strictest(licenses: Iterable[str]) -> str:
    """The licence of a corpus made from sources with these licences; "unknown" if one of several is unknown.

    A source may state several, separated by commas; all of them count. Among licences of one level, the strictest in
    `LEVELS` wins.

    Raises:
        InputError: no licence can satisfy all: two different share-alike licences, a share-alike and a non-commercial
            one, or data that may not be adapted.
    """
    entries = sorted({_read(name) for text in licenses for name in text.split(",")})
    if not entries:
        return UNKNOWN
    _refuse_no_derivatives(entries)
    _refuse_conflicts(entries)
    last = entries[-1]
    return UNKNOWN if last.level == NOT_KNOWN and len(entries) > 1 else last.id


def is_noncommercial(license: str) -> bool:
    """Whether a licence, or one in a comma-separated list, forbids commercial use."""
    levels = {_read(name).level for name in license.split(",")}
    return bool(levels & {NONCOMMERCIAL, NONCOMMERCIAL_SHARE_ALIKE}) or FORBIDS_COMMERCE.search(license) is not None


def _read(text: str) -> _License:
    """A licence by its Hub identifier, regardless of spelling: `CC BY-SA 4.0` is `cc-by-sa-4.0`."""
    plain = re.sub(r"[\s_-]+", "-", text.strip().lower())
    level, position = RANKS.get(plain, (NOT_KNOWN, 0))
    return _License(level, position, plain if level != NOT_KNOWN else text.strip() or UNKNOWN)


def _refuse_no_derivatives(entries: Iterable[_License]) -> None:
    closed = [one.id for one in entries if NO_DERIVATIVES.search(re.sub(r"[\s_]+", "-", one.id.lower()))]
    if closed:
        raise InputError(
            f"The licence {' and '.join(closed)} allows no derivatives, and a corpus is one. Leave that source out: choose "
            "others with --task or --source"
        )


def _refuse_conflicts(entries: list[_License]) -> None:
    sharing = {_family(one.id): one for one in entries if one.level in SHARING}
    limited = [one for one in entries if one.level == NONCOMMERCIAL]
    open_ones = [one for one in sharing.values() if one.level == SHARE_ALIKE]
    parties = list(sharing.values()) if len(sharing) > 1 else [*open_ones, *limited] if open_ones and limited else []
    if parties:
        raise InputError(
            f"The licences {' and '.join(one.id for one in parties)} cannot be combined in one corpus: each requires "
            "its own terms for the whole. Make separate corpora: choose sources with --task or --source"
        )


def _family(name: str) -> str:
    """The licences that a share-alike licence can be combined with: other versions of itself, if it allows them."""
    match = UPGRADES.fullmatch(name)
    return match[1] if match else name
