"""What `slmtune prepare` is asked for, and what it answers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from finetune.cards.corpus_facts import SourceFacts

Progress = Callable[[str, int, int, str], None]  # stage, how much of it is done, of how much, in which unit


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `slmtune prepare`; their defaults stand here and nowhere else."""

    output_dir: Path
    domain: str | None = None
    sources: tuple[str, ...] = ()  # paths, patterns or URLs; they replace the recipe's
    sample: bool = False  # the rows that come with the domain, instead of the Hub's
    tasks: tuple[str, ...] = ()  # of the domain; empty: those that the recipe reads by default
    include: tuple[str, ...] = ()  # sources of the recipe that are off by default
    columns: Mapping[str, str] = field(default_factory=dict)  # name -> column
    instruction: str | None = None  # the question of a classification without a domain
    instruct: bool = False  # questions and answers out of documents, by rules
    chunk_tokens: int = 768  # of a document's chunk; with the chat template it fits into train's 1,024
    language: str | None = None  # codes, "en,de"; None: the recipe's, or any
    quality: bool = True
    split_ratio: str | None = None  # train/validation/test; None: split.DEFAULT_RATIO
    split_by_time: str | None = None  # COLUMN, or COLUMN=VALIDATION_FROM/TEST_FROM
    stratify: bool = False  # exact shares of each label, at the price that added rows may move old ones
    limit: int | None = None  # rows kept of each source and split
    seed: int = 42
    dedup: bool = True
    near_duplicates: float = 0.8  # Jaccard similarity of word 5-grams; 1: only exact ones
    against: tuple[Path, ...] = ()  # earlier corpora whose rows are not taken again
    decontaminate: tuple[str, ...] = ()  # further eval sets: paths or URLs
    recipe_evals: bool = True  # compare with the eval sets that the recipe names
    scrub: bool = True
    on_error: Literal["fail", "skip"] = "fail"
    overwrite: bool = False
    accept_noncommercial: bool = False
    license: str | None = None  # of local files
    workers: int = 1  # processes; the corpus is the same with any number


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
