"""Reads files into shards, block by block, on an engine; the only stage that holds text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from finetune.errors import InputError
from finetune.prepare.decontaminate.eval_index import EvalIndex
from finetune.prepare.drops import Drops
from finetune.prepare.engines.engine import Engine
from finetune.prepare.extract import extract, repeated_lines
from finetune.prepare.formats.files import Lines, Rows, encoding_of
from finetune.prepare.formats.readers import read_blocks
from finetune.prepare.inputs import Inputs
from finetune.prepare.request import PrepareRequest, Progress
from finetune.prepare.rows.job import Block, Job
from finetune.prepare.rows.part import Part
from finetune.prepare.shards import Shard, make_shard, open_shard, shard_path
from finetune.recipe import Domain


def read_shards(
    inputs: Inputs,
    parts: Sequence[Part],
    evals: EvalIndex | None,
    folder: Path,
    engine: Engine,
    drops: Drops,
    on_progress: Progress,
) -> list[Shard]:
    """Turn the parts into shards; shards of an interrupted run are used again.

    Raises:
        RecordError: a row cannot be used, and `--on-error` is `fail`.
        InputError: a file cannot be used, or an official test set is incomplete.
    """
    request = inputs.request
    documents = {}
    total = sum(part.shape is None for part in parts)
    for number, path in extract(parts, folder, drops, engine):
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
    shards = list(map(open_shard, _make_shards(job, documents, engine, drops, on_progress)))
    _check_test_sets(parts, shards)
    return shards


def _make_shards(
    job: Job, documents: Mapping[int, Path], engine: Engine, drops: Drops, on_progress: Progress
) -> list[Path]:
    """The shards of all parts, in order."""
    made = frozenset(path.name for path in job.folder.glob("rows-*.arrow"))
    expand = partial(_read_part, job.parts, documents, job.folder, made)
    reading = _Reading([part.file.path.stat().st_size for part in job.parts])
    paths: list[Path] = []
    for piece in engine.spread(expand, partial(_make, job), range(len(job.parts))):
        if isinstance(piece, _PartEnd):
            part = job.parts[piece.part]
            drops.note_encoding(part.source, piece.encoding)
            if piece.error is not None:
                drops.refuse_file(part.source, part.file, "unreadable", piece.error)
            paths += [shard_path(job.folder, piece.part, block) for block in range(piece.blocks)]
        if reading.follow(piece):
            on_progress("read", reading.done, reading.total, "bytes")
    return paths


@dataclass(frozen=True, slots=True)
class _PartEnd:
    """The end of a part: the number of its blocks, its encoding unless that is UTF-8, and why it was not read further."""

    part: int
    blocks: int
    encoding: str | None
    error: InputError | None


@dataclass(frozen=True, slots=True)
class _Made:
    """A shard that has been made of so many bytes of a part."""

    part: int
    bytes: int


def _read_part(
    parts: Sequence[Part], documents: Mapping[int, Path], folder: Path, made: frozenset[str], number: int
) -> Iterator[Block | _PartEnd]:
    """The blocks of a part, without those whose shards were made before, and its end."""
    count, encoding, problem = 0, None, None
    try:
        encoding = encoding_of(parts[number].file) if parts[number].shape is not None else None
        for content in _contents(parts[number], documents.get(number)):
            if shard_path(folder, number, count).name not in made:
                yield Block(count, number, content)
            count += 1
    except InputError as error:
        problem = error
    yield _PartEnd(number, count, encoding, problem)


def _contents(part: Part, document: Path | None) -> Iterator[Lines | Rows | Path]:
    if part.shape is not None:
        yield from read_blocks(part.file)
    elif document is not None:
        yield document


def _make(job: Job, piece: Block | _PartEnd) -> _Made | _PartEnd:
    if isinstance(piece, _PartEnd):
        return piece
    make_shard(job, piece)
    return _Made(piece.part, len(piece.content.data) if isinstance(piece.content, Lines) else 0)


class _Reading:
    """How many bytes of the parts have been read: of those that are finished, and of the current one."""

    def __init__(self, sizes: Sequence[int]) -> None:
        self.total, self._sizes = sum(sizes), sizes
        self._finished = self._current = 0
        self._has_made = False

    @property
    def done(self) -> int:
        """Bytes; of lines that are still packed, never more than those of their file."""
        return self._finished + self._current

    def follow(self, piece: _Made | _PartEnd) -> bool:
        """Whether there is something new to say: nothing if all shards were there."""
        size = self._sizes[piece.part]
        if isinstance(piece, _PartEnd):
            self._finished, self._current = self._finished + size, 0
        else:
            self._current = min(self._current + piece.bytes, size)
            self._has_made = True
        return self._has_made


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
