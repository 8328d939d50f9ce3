"""Signatures: an estimate of how many word 5-grams two texts share, the same in every process."""

from __future__ import annotations

import os
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from finetune.prepare.dedup.signature import NGRAM, NUM_PERM, sign

from .invented_texts import edited, texts


def shingles(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + NGRAM]) for n in range(max(1, len(words) - NGRAM + 1))}


def test_agreement_estimates_the_jaccard_index_within_the_error_of_128_permutations() -> None:
    originals = texts(400, seed=1)
    copies = edited(originals, changes=3, seed=2)
    one, other = sign(originals), sign(copies)
    errors = []
    for row, (left, right) in enumerate(zip(originals, copies, strict=True)):
        true = len(shingles(left) & shingles(right)) / len(shingles(left) | shingles(right))
        errors.append(((one[row] == other[row]).mean() - true) / np.sqrt(true * (1 - true) / NUM_PERM))
    assert abs(np.mean(errors)) < 0.2  # 400 draws: 4 standard errors of the mean
    assert 0.85 < np.std(errors) < 1.15


def test_unrelated_texts_agree_in_nothing() -> None:
    signed = sign(texts(200, seed=3))
    assert (signed[:100] == signed[100:]).mean() < 0.001


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(max_size=60), max_size=20), st.integers(0, 20))
def test_a_signature_does_not_depend_on_the_texts_beside_it(rows: list[str], cut: int) -> None:
    together = sign(rows)
    assert together.shape == (len(rows), NUM_PERM)
    np.testing.assert_array_equal(together, np.concatenate([sign(rows[:cut]), sign(rows[cut:])]))


def test_a_signature_does_not_depend_on_where_in_a_large_batch_the_text_lies() -> None:
    rows = texts(3000, seed=4)  # two megabytes: several batches
    np.testing.assert_array_equal(sign(rows)[::400], sign(rows[::400]))


def test_a_long_text_is_signed_as_a_whole() -> None:
    long = " ".join(texts(3000, seed=5))
    middle = len(long) // 2
    changed = f"{long[:middle]} something else {long[middle + 300 :]}"
    agree = (sign([long]) == sign([changed])).mean()
    assert len(long) > 1_000_000
    assert 0.97 < agree <= 1
    assert (sign([long]) == sign([long[:middle]])).mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("Take one tablet, twice a day.", "take ONE tablet twice a day"),
        ("“Überdosis” – was nun zu tun ist", 'überdosis: was nun zu tun "ist"'),
        ("Shares rise after results https://t.co/abc", "Shares rise after results https://t.co/xyz"),
        ("no more\u00a0than five words here", "no more than five words here"),
    ],
)
def test_case_punctuation_and_links_do_not_count(left: str, right: str) -> None:
    one, other = sign([left, right])
    np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    ("left", "right"),
    [
        ("short text", "short texts"),
        ("one two", "one two two"),
        ("🚀🚀", "📉"),
        ("!!!", "???"),
        ("https://a.example/1", "https://a.example/2"),
        ("over-dose", "overdose"),
        ("naïve", "nave"),
    ],
)
def test_short_texts_are_alike_only_if_they_have_the_same_words(left: str, right: str) -> None:
    one, other = sign([left, right])
    assert (one == other).mean() < 0.1


def test_a_script_without_blanks_is_compared_by_its_characters() -> None:
    long = (
        "糖尿病は血糖値が慢性的に高くなる病気であり、放置すると目や腎臓や神経に合併症を起こすことがあるため早期の受診が勧められる。"
        * 2
    )
    one, other = sign([long, long.replace("早期の受診", "早めの受診", 1)])
    assert 0.6 < (one == other).mean() < 1


def test_texts_without_a_letter_and_without_anything_are_signed() -> None:
    signed = sign(["", " ", "\n\t", "\ud800", "a" * 3000, "b " * 3])
    assert signed.shape == (6, NUM_PERM)
    assert sign([]).shape == (0, NUM_PERM)


def test_signatures_are_the_same_in_every_process_and_release() -> None:
    rows = ["Diabetes mellitus is a group of metabolic disorders.", "kürzer", "", "糖尿病は病気", "x " * 400]
    program = "import hashlib\nfrom finetune.prepare.dedup.signature import sign\n"
    program += "from finetune.prepare.dedup.guard import guard\n"
    program += f"rows={rows!r}\nprint(hashlib.sha256(sign(rows).tobytes()+guard(rows).tobytes()).hexdigest())"
    digests = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed},
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
        for seed in ("1", "2")
    }
    assert digests == {"b4c1f5a28edaa19442af5078763e177dc63942b25a5d7a9b775342023230329c"}
