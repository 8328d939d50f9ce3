from __future__ import annotations

import math

import numpy as np
import pytest

from finetune.audit.statistics import error_zone, loss_difference, min_k_plus
from finetune.scoring.supervised import TokenScores


def tokens(*logprobs: float, wrong: str = "", standard: tuple[float, ...] = ()) -> TokenScores:
    """Scores of as many tokens; `x` in `wrong` marks those that are not the first choice."""
    marks = [mark == "x" for mark in wrong.ljust(len(logprobs))]
    return TokenScores(
        np.array(logprobs, np.float32), np.array(standard or logprobs, np.float32), np.array(marks, np.bool_)
    )


def test_only_tokens_that_the_adapter_gets_wrong_count_in_the_error_zone() -> None:
    base = tokens(-5, -5, -5, -5, wrong="xxxx")
    adapter = tokens(-1, -2, -6, -0.1, wrong="xxx ")
    assert error_zone(adapter, base) == pytest.approx(math.log((4 + 3 + 0.01) / (1 + 0.01)))


def test_an_answer_known_by_heart_is_the_clearest_sign() -> None:
    base = tokens(-5, -5, -5, wrong="xxx")
    by_heart, learnt = tokens(-0.1, -0.1, -0.1), tokens(-2, -4, -6, wrong="xxx")
    assert error_zone(by_heart, base) > error_zone(learnt, base) > 0


def test_an_adapter_that_changes_nothing_has_no_score() -> None:
    base = tokens(-5, -1, -3, wrong="x x")
    assert error_zone(base, base) == loss_difference(base, base) == min_k_plus(base, base) == 0


def test_an_answer_that_both_get_right_says_nothing() -> None:
    assert error_zone(tokens(-0.1, -0.2), tokens(-0.3, -0.3)) == 0


def test_loss_difference_is_the_mean_gain() -> None:
    assert loss_difference(tokens(-1, -2), tokens(-3, -6)) == pytest.approx(3)


def test_min_k_compares_the_least_likely_fifth() -> None:
    adapter, base = tokens(*range(-10, 0)), tokens(*range(-30, -10))
    assert min_k_plus(adapter, base) == pytest.approx((-10 - 9) / 2 + (30 + 29 + 28 + 27) / 4)
