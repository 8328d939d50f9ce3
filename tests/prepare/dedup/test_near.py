"""Near-duplicates: the result of comparing all pairs, in time that grows with the rows."""

from __future__ import annotations

import time
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.prepare.dedup import near
from finetune.prepare.dedup.guard import guard
from finetune.prepare.dedup.near import PIVOTS, clusters, hash_bands, near_duplicates, rows_sharing
from finetune.prepare.dedup.signature import NUM_PERM, SIGNATURE_DTYPE, sign
from finetune.recipe.options import PrepareOptions

from .invented_texts import edited, texts

ALIKE = PrepareOptions.near_duplicates


def all_pairs(signatures: np.ndarray, guards: np.ndarray, rank: np.ndarray, threshold: float) -> list[int]:
    """The promise in its plainest form."""
    keeper = [-1] * len(rank)
    kept: list[int] = []
    for row in np.argsort(rank, kind="stable").tolist():
        for other in kept:
            alike = (signatures[row] == signatures[other]).mean() >= threshold - 1e-9
            if alike and guards[row] == guards[other]:
                keeper[row] = other
                break
        else:
            kept.append(row)
    return keeper


def rows_of(texts: list[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return sign(texts), guard(texts), np.arange(len(texts))


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(0, 80),
    origins=st.integers(1, 8),
    changed=st.floats(0, 0.4),
    guards=st.integers(1, 3),
    ranks=st.integers(1, 100),
    threshold=st.sampled_from([0.8, 0.85, 0.9, 1.0]),
)
def test_what_is_dropped_is_what_comparing_all_pairs_drops(
    seed: int, rows: int, origins: int, changed: float, guards: int, ranks: int, threshold: float
) -> None:
    draw = np.random.default_rng(seed)
    signatures = draw.integers(0, 2**16, (origins, NUM_PERM), SIGNATURE_DTYPE)[draw.integers(0, origins, rows)]
    noise = draw.random((rows, NUM_PERM)) < changed * draw.random((rows, 1))
    signatures[noise] = draw.integers(0, 2**16, int(noise.sum()), SIGNATURE_DTYPE)
    guard_of, rank = draw.integers(0, guards, rows).astype(np.uint64), draw.integers(0, ranks, rows)
    with patch.object(near, "PIVOTS", rows):  # with fewer, a bucket of all rows forgets some
        found = near_duplicates(signatures, guard_of, rank, threshold)
    assert found.keeper.tolist() == all_pairs(signatures, guard_of, rank, threshold)
    for row, keeper in enumerate(found.keeper.tolist()):
        agreement = 0 if keeper < 0 else (signatures[row] == signatures[keeper]).mean()
        assert found.similarity[row] == pytest.approx(agreement)


@settings(deadline=None, max_examples=40)
@given(seed=st.integers(0, 2**32 - 1), origins=st.integers(1, 12), pivots=st.sampled_from([1, 2, 8]))
def test_the_rows_that_share_a_band_are_all_that_must_be_compared(seed: int, origins: int, pivots: int) -> None:
    draw = np.random.default_rng(seed)
    signatures = draw.integers(0, 2**16, (origins, NUM_PERM), SIGNATURE_DTYPE)[draw.integers(0, origins, 60)]
    noise = draw.random((60, NUM_PERM)) < 0.6 * draw.random((60, 1))
    signatures[noise] = draw.integers(0, 2**16, int(noise.sum()), SIGNATURE_DTYPE)
    guards, rank, numbers = draw.integers(0, 2, 60).astype(np.uint64), draw.permutation(60), np.arange(60)
    with patch.object(near, "PIVOTS", pivots):
        whole = near_duplicates(signatures, guards, rank, ALIKE)
        shared = [rows_sharing(hashes, numbers) for hashes in hash_bands(signatures, guards, ALIKE)]
        rows = np.unique(np.concatenate(shared))
        part = near_duplicates(signatures[rows], guards[rows], rank[rows], ALIKE)
    keeper = np.full(60, -1)
    keeper[rows[part.keeper >= 0]] = rows[part.keeper[part.keeper >= 0]]
    assert keeper.tolist() == whole.keeper.tolist()


def test_a_crowded_bucket_counts_also_for_a_row_that_is_there_by_chance() -> None:
    same, other = np.full(PIVOTS, 7 << 32, np.uint64), np.array([(7 << 32) + 1, 8 << 32], np.uint64)
    assert rows_sharing(np.concatenate([same, other]), np.arange(10)).tolist() == [*range(8), 8]
    assert sorted(rows_sharing(np.concatenate([same[:3], other]), np.arange(5)).tolist()) == [0, 1, 2]


@pytest.mark.parametrize("threshold", [0.6, 0.7])
def test_a_low_threshold_finds_nearly_all(threshold: float) -> None:
    originals = texts(300, seed=1)
    rows = sign(originals + edited(originals, changes=3, seed=2))
    guards, rank = np.zeros(600, np.uint64), np.arange(600)
    found = near_duplicates(rows, guards, rank, threshold).keeper >= 0
    assert found.sum() >= 0.97 * sum(keeper >= 0 for keeper in all_pairs(rows, guards, rank, threshold)) > 0


@pytest.mark.parametrize(("changes", "share"), [(0, 1.0), (1, 0.99), (2, 0.6)])
def test_planted_repeats_are_found_and_nothing_else_is(changes: int, share: float) -> None:
    originals = texts(500, seed=3, words=150)
    found = near_duplicates(*rows_of(originals + edited(originals, changes=changes, seed=4)), ALIKE)
    assert (found.keeper[:500] == -1).all()
    hits = found.keeper[500:]
    assert (hits >= 0).mean() >= share
    assert ((hits == -1) | (hits == np.arange(500))).all()


def test_texts_that_share_a_fifth_are_both_kept() -> None:
    originals = texts(200, seed=5)
    found = near_duplicates(*rows_of(originals + edited(originals, changes=25, seed=6)), ALIKE)
    assert (found.keeper == -1).all()


def test_the_better_row_is_kept_wherever_it_lies() -> None:
    same = ["one and the same text of a few words", "another"]
    signatures = sign([same[0], same[1], same[0], same[0]])
    guards = np.zeros(4, np.uint64)
    assert near_duplicates(signatures, guards, np.array([3, 0, 1, 2]), ALIKE).keeper.tolist() == [2, -1, -1, 2]
    assert near_duplicates(signatures, guards, np.zeros(4), ALIKE).keeper.tolist() == [-1, -1, 0, 0]


def test_short_texts_with_other_figures_are_both_kept_and_long_ones_are_not() -> None:
    words = texts(1, seed=7, words=55)[0]
    short = [f"{words[:330]} in stage 2", f"{words[:330]} in stage 3", f"{words[:330]} in stage 2"]
    assert near_duplicates(*rows_of(short), ALIKE).keeper.tolist() == [-1, -1, 0]
    long = [f"{texts(1, seed=8, words=150)[0]} in {year}" for year in (2023, 2024)]
    assert near_duplicates(*rows_of(long), ALIKE).keeper.tolist() == [-1, 0]


def test_a_template_with_thousands_of_fillings_is_done_in_time_that_grows_with_the_rows() -> None:
    template, draw = texts(1, seed=9)[0].split(), np.random.default_rng(10)

    def filled(count: int) -> list[str]:
        fillings = draw.integers(0, 5000, (count, 10))
        return [" ".join([*template[:60], *map(str, row), *template[60:]]) for row in fillings.tolist()]

    few, many = (rows_of(filled(count)) for count in (1500, 12000))
    started = time.perf_counter()
    near_duplicates(*few, ALIKE)
    middle = time.perf_counter()
    near_duplicates(*many, ALIKE)
    # All pairs would take 64 times as long; a generous bound, since the machine may be busy.
    assert time.perf_counter() - middle < 30 * max(middle - started, 0.1)


def test_a_memory_map_gives_the_same_as_an_array(tmp_path: Path) -> None:
    originals = texts(300, seed=11)
    signatures, guards, rank = rows_of(originals + edited(originals, changes=2, seed=12))
    file = tmp_path / "signatures"
    signatures.tofile(file)
    mapped = np.memmap(file, SIGNATURE_DTYPE, "r", shape=signatures.shape)
    one, other = (near_duplicates(rows, guards, rank, ALIKE) for rows in (mapped, signatures))
    np.testing.assert_array_equal(one.keeper, other.keeper)
    np.testing.assert_array_equal(one.similarity, other.similarity)


@pytest.mark.parametrize("rows", [0, 1])
def test_no_rows_and_one_row(rows: int) -> None:
    found = near_duplicates(*rows_of(["text"] * rows), ALIKE)
    assert found.keeper.tolist() == [-1] * rows
    assert found.similarity.tolist() == [0.0] * rows
    assert list(clusters(found.keeper)) == []


def test_clusters_name_the_kept_row_and_its_repeats_in_order() -> None:
    keeper = np.array([-1, 4, 0, -1, -1, 0, 4])
    assert list(clusters(keeper)) == [(0, [2, 5]), (4, [1, 6])]
