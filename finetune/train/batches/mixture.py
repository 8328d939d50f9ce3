"""Which rows an epoch contains if sources have shares or general rows are replayed: by number, without copies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from finetune.errors import InputError

REPLAY = "replay"  # the name of the replayed rows beside the sources of a corpus


@dataclass(frozen=True, eq=False)
class Part:
    """The rows of one source, and how many of them each epoch contains."""

    rows: NDArray[np.int64]  # their numbers
    quota: int

    def take(self, epoch: int, seed: Sequence[int]) -> NDArray[np.int64]:
        """The rows of an epoch: it goes on where the one before ended, in an endless series of shuffled passes."""
        places = np.arange(epoch * self.quota, (epoch + 1) * self.quota)
        passes, within = places // len(self.rows), places % len(self.rows)
        chosen = np.empty(self.quota, np.int64)
        for number in np.unique(passes):
            order = np.random.default_rng([*seed, int(number)]).permutation(self.rows)
            chosen[passes == number] = order[within[passes == number]]
        return chosen


@dataclass(frozen=True)
class Mixture:
    """The parts of every epoch, by the names of their sources; the same seed gives the same rows in the same order."""

    parts: Mapping[str, Part]
    seed: int

    def __len__(self) -> int:
        return sum(part.quota for part in self.parts.values())

    @property
    def counts(self) -> dict[str, int]:
        """Rows per epoch of each part."""
        return {name: part.quota for name, part in self.parts.items()}

    def rows_of(self, epoch: int) -> list[int]:
        """The numbers of an epoch's rows, in random order."""
        parts = [part.take(epoch, [self.seed, place]) for place, part in enumerate(self.parts.values()) if part.quota]
        order: list[int] = (
            np.random.default_rng([self.seed, len(self.parts), epoch]).permutation(np.concatenate(parts)).tolist()
        )
        return order


@dataclass(frozen=True)
class EpochSampler:
    """Gives a data loader the rows of the current epoch."""

    mixture: Mixture
    epoch: Callable[[], int]

    def __len__(self) -> int:
        return len(self.mixture)

    def __iter__(self) -> Iterator[int]:
        return iter(self.mixture.rows_of(self.epoch()))


def mix(sources: Sequence[str], shares: Mapping[str, float], replayed: int, replay: float, seed: int) -> Mixture | None:
    """The mixture of a corpus; None if every epoch is the corpus itself.

    With shares, an epoch has as many rows as the sources that have one: of a source with a larger share than its rows make
    up, some occur more than once per epoch, and of the others, each epoch has different ones.

    Args:
        sources: the source of each training row.
        shares: of the sources, relative to each other; empty: as they are.
        replayed: number of rows that follow those of the corpus and may be replayed.
        replay: share of each epoch that they make up.

    Raises:
        InputError: a source has no rows, no share is given for it, or all shares are 0.
    """
    if not shares and not replay:
        return None
    names = sorted(set(sources))
    _check_shares(names, shares)
    places = np.array([names.index(source) for source in sources])
    groups = {name: np.flatnonzero(places == place) for place, name in enumerate(names)}
    quotas = {name: len(rows) for name, rows in groups.items()}
    if shares:
        total = sum(len(rows) for name, rows in groups.items() if shares[name])
        quotas = _divide(total, {name: shares[name] for name in names})
    parts = {name: Part(groups[name], quotas[name]) for name in names}
    if replay:
        wanted = round(sum(quotas.values()) * replay / (1 - replay))
        parts[REPLAY] = Part(np.arange(len(sources), len(sources) + replayed), max(1, wanted))
    return Mixture(parts, seed)


def _check_shares(names: Sequence[str], shares: Mapping[str, float]) -> None:
    known = ", ".join(names)
    unknown, missing = sorted(set(shares) - set(names)), sorted(set(names) - set(shares))
    if unknown:
        raise InputError(f"--mix: the corpus has no training rows of a source {unknown[0]}. Its sources are: {known}")
    if shares and missing:
        raise InputError(
            f"--mix has no share for the source {missing[0]}. Add {missing[0]}=SHARE, or {missing[0]}=0 to train without its "
            f"rows; the sources of the corpus are: {known}"
        )
    if shares and not any(shares.values()):
        raise InputError(f"--mix: all shares are 0. Give at least one of {known} a larger one")


def _divide(total: int, shares: Mapping[str, float]) -> dict[str, int]:
    """Divide rows by shares: exact up to rounding, the largest remainders first."""
    exact = {name: total * share / sum(shares.values()) for name, share in shares.items()}
    quotas = {name: int(rows) for name, rows in exact.items()}
    rest = sorted(exact, key=lambda name: (quotas[name] - exact[name], name))
    for name in rest[: total - sum(quotas.values())]:
        quotas[name] += 1
    return quotas
