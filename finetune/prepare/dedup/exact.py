"""Exact duplicates after normalisation, within a split and across splits; held-out rows keep their place."""

from __future__ import annotations

import numpy as np

from finetune.prepare.row_table import CLASSIFICATION, Array, Numbers
from finetune.records import SPLITS


def drop_exact(numbers: Numbers) -> None:
    """Keep the best of equal rows (see `Numbers.order`), and all rows of published test sets.

    Reasons: `duplicate`; `conflicting_label`, the same text with another label; `in_test` and `in_validation`, the same
    question in a split that is measured on; `in_earlier_corpus`.
    """
    order = numbers.order()
    ranked = np.lexsort((np.arange(len(order)), numbers.key[order, 1], numbers.key[order, 0]))
    rows = order[ranked]
    if not len(rows):
        return
    new = np.ones(len(rows), bool)
    new[1:] = (numbers.key[rows[1:]] != numbers.key[rows[:-1]]).any(axis=1)
    starts = np.flatnonzero(new)
    ends = np.append(starts[1:], len(rows))
    for start, end in zip(starts[ends - starts > 1], ends[ends - starts > 1], strict=True):
        _drop_in_group(numbers, rows[start:end])


def _drop_in_group(numbers: Numbers, group: Array) -> None:
    """Rows with one question, the best first."""
    home = group[0]
    seen = {int(numbers.answer[home])}
    for row in group[1:]:
        answer = int(numbers.answer[row])
        reason = None
        if numbers.earlier[home]:
            reason = "in_earlier_corpus"
        elif numbers.place(row) != numbers.place(home):
            reason = f"in_{SPLITS[numbers.place(home)]}"
        elif numbers.kind[row] == CLASSIFICATION:
            reason = "duplicate" if answer == int(numbers.answer[home]) else "conflicting_label"
        elif answer in seen:
            reason = "duplicate"
        seen.add(answer)
        if reason is not None and not numbers.official[row]:
            numbers.drop(row, "dedup", reason)
