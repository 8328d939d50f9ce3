"""Assigns a split to every row whose source does not name one: by hash, by label in exact shares, or by time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from finetune.errors import InputError
from finetune.prepare.row_table import OPEN, TEST, TRAIN, VALIDATION, Array, RowTable
from finetune.prepare.splits.shares import DRAW_ORDER
from finetune.records import SPLITS, Split

Shares = Mapping[Split, float]


def splits_of_rows(table: RowTable, source: int) -> set[Split]:
    """The splits that the rows of a source name; if all name the same one, they name none and become open."""
    rows = np.flatnonzero(table.source == source)
    named = set(table.split[rows].tolist())
    if len(named) == 1:
        table.split[rows] = OPEN
        return set()
    return {SPLITS[split] for split in named if split != OPEN}


def assign_by_hash(table: RowTable, shares: Sequence[Shares]) -> None:
    """Assign each open row to the split that its draw falls into; `shares` has the shares of each source.

    A row's split depends only on its group or question and the seed, so adding rows does not move old ones. Draws are
    independent of labels, so each label has the same shares, up to chance.
    """
    for source, share in enumerate(shares):
        rows = np.flatnonzero((table.split == OPEN) & (table.source == source))
        table.split[rows] = split_of(table.draw[rows], share)


def split_of(draws: Array, shares: Shares) -> Array:
    """The index of the split for each draw, a number from 0 to 2^64."""
    left = draws / 2**64
    splits = np.full(len(draws), SPLITS.index(max(shares, key=lambda split: shares[split])), np.int8)
    waiting = np.ones(len(draws), bool)
    for split in DRAW_ORDER:
        left = left - shares.get(split, 0)
        here = waiting & (left < 0)
        splits[here] = SPLITS.index(split)
        waiting &= ~here
    return splits


def assign_by_label(table: RowTable, shares: Sequence[Shares]) -> None:
    """Assign the open rows of each source and label in exact shares, in the order of their draws; groups stay whole.

    Rows added later may move old ones: the price of exact shares.
    """
    for source, share in enumerate(shares):
        open_rows = np.flatnonzero((table.split == OPEN) & (table.source == source) & (table.reason == 0))
        for label in np.unique(table.label[open_rows]):
            rows = open_rows[table.label[open_rows] == label]
            draws, members = np.unique(table.draw[rows], return_inverse=True)
            held_out = {split: round(share.get(split, 0) * len(draws)) for split in DRAW_ORDER[:-1]}
            of_draw = np.full(len(draws), TRAIN, np.int8)
            start = 0
            for split, number in held_out.items():
                of_draw[start : start + number] = SPLITS.index(split)
                start += number
            table.split[rows] = of_draw[members]
        _keep_groups_whole(table, open_rows)
    table.split[table.split == OPEN] = TRAIN  # dropped rows


def _keep_groups_whole(table: RowTable, rows: Array) -> None:
    """Move a group or question whose rows have several labels to the split of its first row."""
    _, first, members = np.unique(table.draw[rows], return_index=True, return_inverse=True)
    table.split[rows] = table.split[rows][first][members]


def assign_by_time(table: RowTable, share: Shares, starts: tuple[float, float] | None) -> tuple[float, float]:
    """Assign the open rows to train, validation and test by timestamp, the newest to test.

    Returns the timestamps from which rows are validation and test: `starts` or, if None, those that give the shares.

    Raises:
        InputError: all rows have the same timestamp.
    """
    rows = np.flatnonzero((table.split == OPEN) & ~table.earlier)
    times = table.timestamp[rows]
    if starts is None:
        ordered = np.sort(times)
        cuts = [share["train"], share["train"] + share["validation"]]
        starts = tuple(float(ordered[min(int(cut * len(ordered)), len(ordered) - 1)]) for cut in cuts)  # type: ignore[assignment]
        assert starts is not None
        if len(ordered) and ordered[0] == starts[1]:
            raise InputError("--split-by-time: all rows have the same timestamp. Choose another column")
    table.split[rows] = np.select([times >= starts[1], times >= starts[0]], [TEST, VALIDATION], TRAIN)
    table.split[table.split == OPEN] = TRAIN
    return starts


def drop_split_groups(table: RowTable) -> None:
    """Drop rows whose group is also in a held-out split, which can happen if sources name their splits."""
    rows = np.flatnonzero(table.grouped & table.kept)
    if not len(rows):
        return
    held = np.select([table.split[rows] == TEST, table.split[rows] == VALIDATION], [0, 1], 2)
    _, members = np.unique(table.draw[rows], return_inverse=True)
    best = np.full(members.max() + 1, 2)
    np.minimum.at(best, members, held)
    for number, name in ((0, "test"), (1, "validation")):
        away = (best[members] == number) & (held > number) & ~table.official[rows]
        if away.any():
            table.drop(rows[away], "split", f"group_in_{name}")


def assert_disjoint(table: RowTable, *, strict: bool) -> str:
    """Make sure that no question and no group is in two splits, and say so; if not `strict`, say how many are.

    Raises:
        AssertionError: slmtune has a bug; nothing is written.
    """
    rows = np.flatnonzero(table.kept)
    _, questions = np.unique(table.key[rows], axis=0, return_inverse=True)
    grouped = rows[table.grouped[rows]]
    _, groups = np.unique(table.draw[grouped], return_inverse=True)
    torn = _count_torn(questions.reshape(-1), table.split[rows])
    torn_groups = _count_torn(groups, table.split[grouped])
    if torn_groups or (strict and torn):
        raise AssertionError(f"{torn} questions and {torn_groups} groups are in two splits")
    if torn:
        return f"{torn} questions are in two splits, because duplicates were kept (--no-dedup)."
    counted = f"{len(rows)} rows" + (f", {len(np.unique(groups))} groups" if len(grouped) else "")
    return f"No question{' and no group' if len(grouped) else ''} is in two splits ({counted})."


def _count_torn(members: Array, splits: Array) -> int:
    """The number of members that occur in several splits."""
    pairs = np.unique(np.stack([members, splits.astype(members.dtype)]), axis=1)
    _, counts = np.unique(pairs[0], return_counts=True)
    return int((counts > 1).sum())
