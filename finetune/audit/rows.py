"""Which rows an audit looks at: training rows, and as many held-out rows of the same sources."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase

from finetune.artifacts import Corpus
from finetune.audit.request import AuditRequest
from finetune.canary_key import CANARY_SOURCE, Canary
from finetune.corpus.open import open_corpus
from finetune.corpus.store import read_split
from finetune.errors import InputError
from finetune.models.chat_template import Rendering, render, unrendered_parts
from finetune.records import SPLITS, Example


@dataclass(frozen=True)
class Row:
    """A row as the adapter read it in training: cut to the maximum length."""

    example: Example
    rendering: Rendering

    @property
    def answer(self) -> tuple[int, int]:
        """Where the tokens of the last answer begin and end; the first token of a row is never predicted."""
        supervised = (False, *self.rendering.supervised[1:])
        end = len(supervised) - supervised[::-1].index(True)
        return end - next(n for n in range(1, end + 1) if not supervised[end - n - 1]), end


@dataclass(frozen=True)
class AuditRows:
    """The rows of an audit, and all texts of the corpus that copies are searched in."""

    members: tuple[Row, ...]
    controls: tuple[Row, ...]
    training: tuple[Example, ...]
    held_out: tuple[Example, ...]


@dataclass(frozen=True)
class PlacedCanary:
    """A canary with its row, and where the tokens of its secret begin and end."""

    canary: Canary
    row: Row
    start: int
    end: int


def choose_rows(
    request: AuditRequest, corpus: Corpus, tokenizer: PreTrainedTokenizerBase, max_length: int
) -> AuditRows:
    """Read the rows, and draw members and controls: equally many of each source, so that sources are no sign of membership.

    Raises:
        InputError: the corpus has no training rows with answers that are learnt.
    """
    training = [row for row in read_split(corpus, "train") if row.source != CANARY_SOURCE]
    known = {row.messages for row in training}
    held_out = [row for row in _read_held_out(request, corpus) if row.messages not in known]
    members, controls = (_by_source(tokenizer, rows, request.seed) for rows in (training, held_out))
    if not members:
        raise InputError(
            f"The corpus at {corpus.path} has no training rows with answers that an adapter learns: an audit reads answers "
            "and texts, and rows for preference tuning have others. Give the corpus that the adapter was trained on"
        )
    first, second = (tuple(_render(tokenizer, rows, max_length)) for rows in _match(members, controls, request.limit))
    return AuditRows(first, second, tuple(training), tuple(held_out))


def _read_held_out(request: AuditRequest, corpus: Corpus) -> list[Example]:
    if request.held_out is None:
        return read_split(corpus, "test") + read_split(corpus, "validation")
    other = open_corpus(request.held_out, command=request.prepare_command)
    return [row for split in SPLITS for row in read_split(other, split) if row.source != CANARY_SOURCE]


def _by_source(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], seed: int) -> dict[str, list[Example]]:
    """The rows that can be scored, by source, in an order drawn from the seed."""
    groups: dict[str, list[Example]] = {}
    for row in examples:
        if row.task != "preference" and not (row.uses_tools and unrendered_parts(tokenizer, row)):
            groups.setdefault(row.source, []).append(row)
    for rows in groups.values():
        rows.sort(key=lambda row: hashlib.sha256(f"{seed}:{row.id}".encode()).digest())
    return dict(sorted(groups.items()))


def _match(
    members: Mapping[str, list[Example]], controls: Mapping[str, list[Example]], limit: int
) -> tuple[list[Example], list[Example]]:
    """As many members as controls of every source, at most about `limit`; any rows if no source has both."""
    shared = {source: min(len(rows), len(controls.get(source, ()))) for source, rows in members.items()}
    total = sum(shared.values())
    if not total:
        first, second = ([row for rows in groups.values() for row in rows][:limit] for groups in (members, controls))
        return first, second
    quotas = {source: math.ceil(count * min(1, limit / total)) for source, count in shared.items() if count}
    first, second = (
        [row for source, quota in quotas.items() for row in groups[source][:quota]] for groups in (members, controls)
    )
    return first, second


def _render(tokenizer: PreTrainedTokenizerBase, examples: Iterable[Example], max_length: int) -> Iterator[Row]:
    """The rows with a token that carries loss."""
    for example in examples:
        rendering = cut(render(tokenizer, example), max_length)
        if any(rendering.supervised[1:]):
            yield Row(example, rendering)


def cut(rendering: Rendering, max_length: int) -> Rendering:
    """The tokens that training kept."""
    return Rendering(rendering.ids[:max_length], rendering.supervised[:max_length])


def place_canaries(
    canaries: Sequence[Canary], tokenizer: PreTrainedTokenizerBase, max_length: int
) -> list[PlacedCanary]:
    """The canaries whose whole secret was learnt: inside the maximum length, and in tokens that carry loss."""
    placed = []
    for canary in canaries:
        example = canary.to_row()
        row = Row(example, cut(render(tokenizer, example), max_length))
        span = _find(tokenizer, row.rendering.ids, canary.secret)
        if span and all(row.rendering.supervised[slice(*span)]):
            placed.append(PlacedCanary(canary, row, *span))
    return placed


def _find(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], text: str) -> tuple[int, int] | None:
    """The first and last token (exclusive) of the shortest span that spells a text, if there is one."""

    def spells(start: int, end: int) -> bool:
        return text in str(tokenizer.decode(list(ids[start:end])))

    if not spells(0, len(ids)):
        return None
    end = next(end for end in range(1, len(ids) + 1) if spells(0, end))
    return next(start for start in range(end - 1, -1, -1) if spells(start, end)), end
