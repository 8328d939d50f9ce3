"""What cleaning does to the rows of sources: reads them again as a corpus was prepared, with and without cleaning.

A corpus holds no text from before cleaning: it may be published, and that text may contain what scrubbing replaced. So the
sources are read again, and nothing is written. Both versions are scrubbed like the corpus.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

from finetune.artifacts import Corpus
from finetune.corpus.open import open_corpus
from finetune.errors import InputError
from finetune.prepare.drops import Drops
from finetune.prepare.engines.local import LocalEngine
from finetune.prepare.extract import extract
from finetune.prepare.formats.readers import read_blocks
from finetune.prepare.inputs import Inputs, open_inputs
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.make import make_rows
from finetune.prepare.rows.part import Part
from finetune.prepare.rows.survey import survey
from finetune.recipe import CUSTOM_DOMAIN
from finetune.recipe.options import ShowOptions
from finetune.records import Cleaning, Message

COMPARED_FILES = 100  # files of rows, and documents
KEPT_OPTIONS = (
    "columns",
    "label_separator",
    "encoding",
    "instruction",
    "instruct",
    "chunk_tokens",
    "sample",
    "clean",
    "scrub",
    "scrub_policy",
    "scrub_find",
    "tagger",
    "seed",
)

Turns = tuple[Message, ...]


@dataclass(frozen=True)
class ComparedRow:
    """A row before and after cleaning."""

    id: str
    before: Turns
    after: Turns


@dataclass(frozen=True)
class CleaningComparison:
    """The rows to show, those that cleaning changed first, and how many of the rows that were read it changed."""

    corpus: Path
    clean: str
    read: int
    changed: int
    rows: tuple[ComparedRow, ...]


def compare_cleaning(
    corpus_path: Path | str,
    sources: Sequence[str] = (),
    *,
    domain: str | None = None,
    samples: int = ShowOptions.samples,
) -> CleaningComparison:
    """Compare rows before and after cleaning.

    Args:
        corpus_path: the corpus; its options say how the sources are read and how they are cleaned.
        sources: the files that it was made of; none: the sources of its domain.
        domain: the domain, if the corpus was made with a domain folder.
        samples: number of rows to show.

    Raises:
        SlmtuneError: the corpus or a source cannot be used.
    """
    corpus = open_corpus(corpus_path)
    request = _request(corpus, tuple(sources), domain)
    drops = Drops("skip")
    inputs = open_inputs(request)
    parts = survey(inputs.sources, request, inputs.domain, drops)
    changed: list[ComparedRow] = []
    same: list[ComparedRow] = []
    with tempfile.TemporaryDirectory() as folder:
        for block in _first_blocks(parts, Path(folder), drops):
            before = _turns(inputs, parts, "none", block)
            after = _turns(inputs, parts, request.clean, block)
            for name, turns in after.items():
                row = ComparedRow(name, before.get(name, ()), turns)
                (same if row.before == turns else changed).append(row)
    rows = (*changed, *same)
    return CleaningComparison(corpus.path, request.clean, len(rows), len(changed), rows[:samples])


def _request(corpus: Corpus, sources: tuple[str, ...], domain: str | None) -> PrepareRequest:
    config: Mapping[str, Any] = corpus.manifest.get("config", {})
    name = domain or config.get("domain", CUSTOM_DOMAIN)
    if not sources and name == CUSTOM_DOMAIN:
        raise InputError(
            f"{corpus.path} does not contain the text from before cleaning. Name the files that it was made of: "
            "slmtune show CORPUS --diff --source FILE"
        )
    return PrepareRequest(
        corpus.path,
        None if name == CUSTOM_DOMAIN else name,
        overwrite=True,
        sources=sources,
        tasks=() if sources else tuple(config.get("tasks", ())),
        include=() if sources else tuple(config.get("include", ())),
        **{option: config[option] for option in KEPT_OPTIONS if option in config},
        ignored=tuple(config.get("ignored", ())),
        quality=False,
        language="any",
        on_error="skip",
        accept_noncommercial=True,
    )


def _first_blocks(parts: Sequence[Part], folder: Path, drops: Drops) -> Iterator[Block]:
    """The first block of rows of each file, and the first documents."""
    files = [number for number, part in enumerate(parts) if part.shape is not None][:COMPARED_FILES]
    for number in files:
        for content in islice(read_blocks(parts[number].file), 1):
            yield Block(0, number, content)
    documents = [number for number, part in enumerate(parts) if part.shape is None][:COMPARED_FILES]
    for place, path in extract([parts[number] for number in documents], folder, drops, LocalEngine(1)):
        if path is not None:
            yield Block(0, documents[place], path)


def _turns(inputs: Inputs, parts: Sequence[Part], clean: Cleaning, block: Block) -> dict[str, Turns]:
    """The turns of the rows of a block, cleaned to a degree, by id."""
    request, part = inputs.request, parts[block.part]
    if clean != request.clean:
        part = replace(part, cleaning=dict.fromkeys(part.cleaning, clean))
    given = (*parts[: block.part], part)
    job = Job(replace(request, clean=clean), given, Path(), frozenset(), scrubber=inputs.scrubber)
    return {row.origin.name: row.example.turns for row in make_rows(job, block, Drops("skip"))}
