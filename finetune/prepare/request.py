"""The input and the result of `slmtune prepare`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from finetune.canary_key import key_beside
from finetune.cards.corpus_facts import SourceFacts
from finetune.corpus.upload import build_folder
from finetune.recipe.options import PrepareOptions
from finetune.records import Split, Unused
from finetune.storage.address import is_address

Progress = Callable[[str, int, int, str], None]  # stage, amount done, total amount, unit


@dataclass(frozen=True)
class PrepareRequest(PrepareOptions):
    """What to prepare, how, and where to put the corpus: a folder, or the address of one in a bucket.

    `label_rows` is the number of rows searched for labels. With `only`, files of other splits are not read, and all rows of
    the user's own files that name no split belong to it.
    """

    output_dir: Path | str
    domain: str | None = None
    overwrite: bool = False
    label_rows: int | None = None  # of each file; None: all
    only: Split | None = None

    @property
    def address(self) -> str | None:
        """Where the corpus is uploaded to; None: nowhere."""
        return self.output_dir if is_address(self.output_dir) else None

    @property
    def folder(self) -> Path:
        """Where the corpus is built."""
        return build_folder(self.output_dir) if is_address(self.output_dir) else Path(self.output_dir)

    @property
    def key_path(self) -> Path:
        """The file for the key of the canaries."""
        return self.canary_key or key_beside(self.folder)


@dataclass(frozen=True)
class PrepareResult:
    """The corpus and its figures; `labels` counts the labels of each classification source.

    `splits` adds up to the rows of the corpus and, with `dropped` and without those of canaries, to the rows read (a document
    gives any number of rows).
    `unused` lists what the sources have and the corpus lacks, `cleaned` counts the rows that cleaning changed, by what it
    changed. `clusters` counts the kept rows with near-duplicates, `contaminated` the rows that contained an item of an eval
    set. `canaries` were drawn, and `canary_key` tells which of them are planted. `address` is where the corpus was uploaded
    to; `corpus` is then a copy in the user's cache.
    """

    corpus: Path
    splits: dict[str, int]
    dropped: dict[str, int]
    unused: list[Unused]
    cleaned: dict[str, int]
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
    canaries: int = 0
    canary_key: Path | None = None
    address: str | None = None
