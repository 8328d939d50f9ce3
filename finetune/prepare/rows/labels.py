"""Reads the labels of labelled texts, which are the choices of every question about them."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

from finetune.errors import InputError, RecordError, Unusable
from finetune.prepare.clean.quality import filter_example
from finetune.prepare.drops import Drops, sum_counts
from finetune.prepare.formats.files import Row
from finetune.prepare.formats.readers import read_rows
from finetune.prepare.request import PrepareRequest
from finetune.prepare.rows.labelled import LABELLED, Classes, with_classes
from finetune.prepare.rows.part import Part, read_row
from finetune.records import SEPARATOR, Example

MAX_LABELS = 100  # more distinct values are text or numbers, not labels
COUNTED = 10_000  # distinct values, after which counting ends

log = logging.getLogger(__name__)


@dataclass
class Labels:
    """The labels of a file by how many rows have them, and the first row that cannot be used.

    `several` says that rows may have several, because one has.
    """

    counts: Counter[str] = field(default_factory=Counter)
    several: bool = False
    problem: RecordError | None = None
    is_partial: bool = False

    @property
    def folded(self) -> set[str]:
        """The labels in lower case."""
        return {label.casefold() for label in self.counts}


def read_labels(part: Part, request: PrepareRequest, enough: int = COUNTED) -> Labels:
    """The labels of a file; those that only unusable rows have do not count. Ends once there are more than `enough`.

    Only the first usable row of each label is read whole, so this costs little more than reading the file.
    """
    labels = Labels(several=part.separator is not None or bool(part.indicators))
    known: dict[Hashable, tuple[str, ...]] = {}
    for number, row in enumerate(islice(_readable_rows(part, request), request.label_rows), 1):
        labels.is_partial = number == request.label_rows
        try:
            key = _key(part.columns(row).get("label"))
            names = known[key] if key in known else _usable_labels(part, row, request)
        except Unusable as error:
            labels.problem = labels.problem or RecordError(f"{part.file.shown}:{row.line}", str(error))
            continue
        if names is None:
            continue
        labels.counts.update(names)
        labels.several |= len(names) > 1
        if key is not None:
            known[key] = names
        if len(labels.counts) > enough:
            break
    return labels


def _readable_rows(part: Part, request: PrepareRequest) -> Iterator[Row]:
    """The rows of a file, up to an error that ends it; what cannot be read is refused when its turn comes."""
    try:
        yield from (row for row in read_rows(part.file) if isinstance(row, Row))
    except InputError:
        if request.on_error == "fail":
            raise


def _key(value: Any) -> Hashable | None:
    """What equal values of a label have in common; None if that is not known."""
    parts = tuple(value) if isinstance(value, list) else (value,)
    return parts if all(isinstance(part, str | int | float) for part in parts) else None


def _usable_labels(part: Part, row: Row, request: PrepareRequest) -> tuple[str, ...] | None:
    draft = read_row(part, row).draft
    dropped = request.quality and filter_example(Example("", draft.messages, "classification"))
    return None if dropped else draft.labels if draft.labels is not None else (draft.messages[-1].content,)


def add_choices(parts: Sequence[Part], request: PrepareRequest, drops: Drops) -> Iterator[Part]:
    """Give labelled texts their choices: the labels of all files of a source, and of sources that share a label.

    Raises:
        InputError: there are too few or too many labels, and `--on-error` is `fail`.
    """
    labels = {number: read_labels(part, request) for number, part in enumerate(parts) if part.shape in LABELLED}
    if request.instruction is not None and not labels:
        raise InputError(
            "--instruction sets the question for rows of text and label, but no source has such rows. Drop the option"
        )
    if request.label_separator is not None and not any(part.separator for part in parts):
        raise InputError("--label-separator is for rows with a label, but no source has such rows. Drop the option")
    pools = _pools({number: (parts[number].source.id, each) for number, each in labels.items()})
    spellings = {number: _choose_spellings(each.counts for each in pools[number]) for number in labels}
    for number, part in enumerate(parts):
        if part.shape not in LABELLED:
            yield part
            continue
        try:
            _check_labels(part, spellings[number], pools[number])
        except InputError as error:
            drops.refuse_file(part.source, part.file, "no_classes", error)
            continue
        classes = Classes(spellings[number], any(each.several for each in pools[number]))
        yield replace(part, shape=with_classes(part.shape, classes, request.instruction))


def _pools(labels: Mapping[int, tuple[str, Labels]]) -> dict[int, list[Labels]]:
    """The labels of all files whose labels belong together with those of a file, by the number of the file."""
    groups: list[tuple[set[str], set[str], list[int]]] = []  # sources, folded labels, files
    for number, (source, each) in labels.items():
        joined: tuple[set[str], set[str], list[int]] = ({source}, each.folded, [number])
        apart = []
        for group in groups:
            if group[0] & joined[0] or group[1] & joined[1]:
                joined = (group[0] | joined[0], group[1] | joined[1], group[2] + joined[2])
            else:
                apart.append(group)
        groups = [*apart, joined]
    return {number: [labels[other][1] for other in group[2]] for group in groups for number in group[2]}


def _choose_spellings(counts: Iterable[Mapping[str, int]]) -> dict[str, str]:
    """Each label by its name in lower case; of spellings that differ in case only, the most frequent one."""
    spellings: dict[str, str] = {}
    for label, _ in sorted(sum_counts(counts).items(), key=lambda item: -item[1]):
        spellings.setdefault(label.casefold(), label)
    return spellings


def _check_labels(part: Part, spellings: Mapping[str, str], pool: Sequence[Labels]) -> None:
    is_partial = any(labels.is_partial for labels in pool)
    if any(labels.several for labels in pool) and any(SEPARATOR.strip() in name for name in spellings):
        raise InputError(
            f"{part.file.shown}: rows have several labels, and a label contains a semicolon, which separates labels in an "
            "answer. Write the label without one"
        )
    if (1 if is_partial else 2) <= len(spellings) <= MAX_LABELS:
        written = {label for labels in pool for label in labels.counts}
        if len(written) > len(spellings):
            log.warning(
                "%s: %d labels differ from others in case only and count as the same.",
                part.file.shown,
                len(written) - len(spellings),
            )
        return
    problem = next((labels.problem for labels in pool if labels.problem is not None), None)
    if len(spellings) < 2 and problem is not None:
        raise problem
    more = "more than " if len(spellings) > COUNTED else ""
    raise InputError(
        f"{part.file.shown}: the column 'label' has {more}{min(len(spellings), COUNTED)} distinct values; classification "
        f"needs 2 to {MAX_LABELS}. If the answers are free text, use: --map question=text --map answer=label"
    )
