"""What `slmtune prepare` is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.cards.corpus_facts import SourceFacts
from finetune.recipe.options import PrepareOptions

Progress = Callable[[str, int, int, str], None]  # stage, how much of it is done, of how much, in which unit


@dataclass(frozen=True)
class PrepareRequest(PrepareOptions):
    """What to prepare, how, and where the corpus goes."""

    output_dir: Path
    domain: str | None = None
    overwrite: bool = False


@dataclass(frozen=True)
class PrepareResult:
    """What was made; `labels` counts the labels of each classification source.

    `splits` sums to the rows of the corpus, and with `dropped` to the rows read (documents give several rows or none).
    `clusters` counts the kept rows that others nearly repeated, `contaminated` the rows that gave away an eval set.
    """

    corpus: Path
    splits: dict[str, int]
    dropped: dict[str, int]
    scrubbed: dict[str, int]
    sources: list[SourceFacts]
    fingerprint: str
    seconds: float
    by_task: dict[str, int]
    labels: dict[str, dict[str, int]]
    license: str
    clusters: int
    contaminated: int
    evals: list[str]
    disjoint: str
