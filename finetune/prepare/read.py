"""Reads files into shards, block by block, in worker processes; the only stage that holds text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path

from finetune.errors import InputError
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.drops import Drops
from finetune.prepare.extract import extract, repeated_lines
from finetune.prepare.formats.files import Lines, Rows, encoding_of
from finetune.prepare.formats.readers import read_blocks
from finetune.prepare.inputs import Inputs
from finetune.prepare.request import PrepareRequest, Progress
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.part import Part
from finetune.prepare.shards import Shard, make_shard, open_shard, shard_path
from finetune.prepare.workers import ordered_map
from finetune.recipe import Domain

SMALL = 2 * 2**20  # bytes: reading less takes less time than starting processes


def read_shards(
    inputs: Inputs,
    parts: Sequence[Part],
    evals: EvalIndex | None,
    folder: Path,
    drops: Drops,
    on_progress: Progress,
) -> list[Shard]:
    """Turn the parts into shards; shards of an interrupted run are used again.

    Raises:
        RecordError: a row cannot be used, and `--on-error` is `fail`.
        InputError: a file cannot be used, or an official test set is incomplete.
    """
    request = inputs.request
    sizes = [part.file.path.stat().st_size for part in parts]
    workers = request.workers if sum(sizes) > SMALL else 1
    documents = {}
    total = sum(part.shape is None for part in parts)
    for number, path in extract(parts, folder, drops, workers):
        if path is not None:
            documents[number] = path
        on_progress("extract", len(documents), total, "documents")
    job = Job(
        request,
        tuple(parts),
        folder,
        allowed_languages(request, inputs.domain),
        evals,
        inputs.scrubber,
        repeated=repeated_lines(parts, documents, drops),
    )
    blocks = _Blocks(parts, documents, drops)
    todo = (block for block in blocks if not shard_path(folder, block.number).is_file())
    for _ in ordered_map(partial(make_shard, job), todo, workers):
        on_progress("read", blocks.read(sizes), sum(sizes), "bytes")
    shards = [open_shard(shard_path(folder, number)) for number in range(blocks.count)]
    _check_test_sets(parts, shards)
    return shards


class _Blocks:
    """The numbered blocks of all parts, in order, and the progress of reading them."""

    def __init__(self, parts: Sequence[Part], documents: dict[int, Path], drops: Drops) -> None:
        self.count = 0
        self._parts, self._documents, self._drops = parts, documents, drops
        self._part, self._bytes = 0, 0

    def __iter__(self) -> Iterator[Block]:
        for number, part in enumerate(self._parts):
            self._part, self._bytes = number, 0
            try:
                for content in self._contents(number, part):
                    if isinstance(content, Lines):
                        self._bytes += len(content.data)
                    self.count += 1
                    yield Block(self.count - 1, number, content)
            except InputError as error:
                self._drops.refuse_file(part.source, part.file, "unreadable", error)
        self._part = len(self._parts)

    def _contents(self, number: int, part: Part) -> Iterator[Lines | Rows | Path]:
        if part.shape is not None:
            self._drops.note_encoding(part.source, encoding_of(part.file))
            yield from read_blocks(part.file)
        elif number in self._documents:
            yield self._documents[number]

    def read(self, sizes: Sequence[int]) -> int:
        """Bytes of the finished files and of the current one."""
        present = min(self._bytes, sizes[self._part]) if self._part < len(sizes) else 0
        return sum(sizes[: self._part]) + present


def allowed_languages(request: PrepareRequest, domain: Domain | None) -> frozenset[str]:
    """The languages of rows that are kept; empty: any."""
    if request.language is None:
        return frozenset(domain.recipe.languages if domain else ())
    return frozenset(code.strip().lower() for code in request.language.split(",") if code.strip()) - {"any"}


def _check_test_sets(parts: Sequence[Part], shards: Sequence[Shard]) -> None:
    for number, part in enumerate(parts):
        lacking = part.test_ids.difference(*(shard.test_ids for shard in shards if shard.part == number))
        if lacking:
            raise InputError(
                f"{part.file.shown} lacks {len(lacking)} of the {len(part.test_ids)} official test ids of "
                f"{part.source.id}: the data set is not the one that the recipe was written for. Give an older revision "
                "of it"
            )
