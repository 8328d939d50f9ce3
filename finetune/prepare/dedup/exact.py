"""Drops exact duplicates after normalisation, within and across splits; held-out rows are kept."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from finetune.prepare.row_table import CLASSIFICATION, PREFERENCE, Array, RowTable
from finetune.records import SPLITS


def drop_exact(table: RowTable) -> None:
    """Keep the best of equal rows (see `RowTable.order`), and all rows of published test sets.

    Reasons: `duplicate`; `conflicting_label`, a text with two labels, of which no row is kept; `conflicting_preference`,
    answers of which either is preferred, or one that is rated both ways; `in_test` and `in_validation`, the same question in
    a held-out split; `in_earlier_corpus`.
    """
    order = table.order()
    ranked = np.lexsort((np.arange(len(order)), table.key[order, 1], table.key[order, 0]))
    rows = order[ranked]
    if not len(rows):
        return
    new = np.ones(len(rows), bool)
    new[1:] = (table.key[rows[1:]] != table.key[rows[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(rows))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        _drop_in_group(table, rows[start:end])


def _drop_in_group(table: RowTable, group: Array) -> None:
    """Drop duplicates in a group of rows with the same question, the best row first."""
    home = group[0]
    labelled = [
        row for row in group if table.kind[row] == CLASSIFICATION and table.split_at(row) == table.split_at(home)
    ]
    conflict = len(_contradictory(table, labelled)) > 0
    torn = _contradictory(table, [row for row in group if table.kind[row] == PREFERENCE])
    seen: set[int] = set()
    for row in group:
        answer = int(table.answer[row])
        reason = None
        if table.earlier[home]:
            reason = "in_earlier_corpus"
        elif table.split_at(row) != table.split_at(home):
            reason = f"in_{SPLITS[table.split_at(home)]}"
        elif conflict and row in labelled:
            reason = "conflicting_label"
        elif int(table.wording[row]) in torn:
            reason = "conflicting_preference"
        elif answer in seen:
            reason = "duplicate"
        seen.add(answer)
        if reason is not None and not table.official[row]:
            table.drop(row, "dedup", reason)


def _contradictory(table: RowTable, rows: Sequence[int]) -> set[int]:
    """The wordings that have two answers."""
    pairs = set(zip(table.wording[rows].tolist(), table.answer[rows].tolist(), strict=True))
    counts = Counter(wording for wording, _ in pairs)
    return {wording for wording, answers in counts.items() if answers > 1}
