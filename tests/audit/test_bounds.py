from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from finetune.audit.bounds import clopper_pearson, epsilon_bound, fisher, guess_p_value, separate


@pytest.mark.parametrize(("hits", "tries"), [(0, 10), (3, 10), (10, 10), (17, 250), (249, 250)])
def test_interval_of_a_share_is_exact(hits: int, tries: int) -> None:
    expected = stats.binomtest(hits, tries).proportion_ci(method="exact")
    assert clopper_pearson(hits, tries) == pytest.approx((expected.low, expected.high), abs=1e-9)


@pytest.mark.parametrize("counts", [(3, 10, 1, 12), (0, 5, 0, 5), (9, 9, 0, 9)])
def test_fisher_agrees_with_scipy(counts: tuple[int, int, int, int]) -> None:
    hits, tries, other, others = counts
    table = [[hits, tries - hits], [other, others - other]]
    assert fisher(*counts) == pytest.approx(stats.fisher_exact(table, "greater").pvalue)


def test_area_and_its_test_agree_with_scipy_with_ties() -> None:
    draw = np.random.default_rng(0)
    members, controls = draw.integers(0, 9, 80) + 1.0, draw.integers(0, 9, 60) + 0.0
    expected = stats.mannwhitneyu(members, controls, alternative="greater", use_continuity=False, method="asymptotic")
    result = separate(members.tolist(), controls.tolist())
    assert result.auc == pytest.approx(expected.statistic / (80 * 60))
    assert result.auc_p_value == pytest.approx(expected.pvalue)


def test_equal_scores_tell_nothing_apart() -> None:
    result = separate([0.0] * 150, [0.0] * 150)
    assert (result.tpr, result.tpr_p_value, result.auc, result.auc_p_value) == (0, 1, 0.5, 0.5)


def test_perfect_separation_has_an_interval_below_one() -> None:
    result = separate([1.0] * 100, [0.0] * 100)
    assert (result.auc, result.tpr, result.auc_ci95[1]) == (1, 1, 1)
    assert 0.9 < result.auc_ci95[0] < 0.99


def test_intervals_of_the_area_contain_the_true_one_as_often_as_they_say() -> None:
    draw, true = np.random.default_rng(1), stats.norm.cdf(0.5 / math.sqrt(2))
    inside = 0
    for _ in range(400):
        low, high = separate((draw.normal(size=40) + 0.5).tolist(), draw.normal(size=60).tolist()).auc_ci95
        inside += low <= true <= high
    assert 0.91 < inside / 400 < 0.985


def test_chance_of_members_above_the_threshold_is_that_of_all_orders() -> None:
    """Four members and 100 controls, of which one may exceed the threshold: every order of scores is equally likely."""
    scores = [1.0] * 4 + [0.0] * 100
    simulated, draw = [], np.random.default_rng(2)
    for _ in range(20_000):
        shuffled = draw.permutation(104)
        simulated.append((shuffled[:4] > np.sort(shuffled[4:])[-2]).sum())
    assert separate(scores[:2] + [-1.0] * 2, scores[4:]).tpr_p_value == pytest.approx(
        np.mean(np.array(simulated) >= 2), abs=0.002
    )


def randomized_response(correct: int, guesses: int, epsilon: float, delta: float = 0.0) -> float:
    """Probability that randomized response tells so many coins, summed over all ways in which it can answer."""
    right = delta + (1 - delta) * math.exp(epsilon) / (1 + math.exp(epsilon))
    ways = itertools.product((True, False), repeat=guesses)
    return sum(math.prod(right if one else 1 - right for one in way) for way in ways if sum(way) >= correct)


@pytest.mark.parametrize(("correct", "epsilon"), [(6, 0.0), (8, 0.0), (9, 0.7), (10, 2.0), (0, 1.0)])
def test_guesses_about_randomized_response_are_as_likely_as_the_theorem_says(correct: int, epsilon: float) -> None:
    assert guess_p_value(10, 10, correct, epsilon, 0.0) == pytest.approx(randomized_response(correct, 10, epsilon))


@pytest.mark.parametrize("correct", range(11))
def test_with_a_delta_no_guesses_are_likelier_than_the_theorem_says(correct: int) -> None:
    true = randomized_response(correct, 10, 0.5, delta=0.02)
    assert true <= guess_p_value(10, 10, correct, 0.5, 0.02) + 1e-12
    if correct > 5:
        assert guess_p_value(10, 10, correct, 0.5, 0.0) < true


def test_bound_stays_below_the_true_epsilon() -> None:
    """Randomized response with ε = 1: at most one bound in twenty may be higher."""
    draw, exceeded = np.random.default_rng(3), 0
    for _ in range(200):
        planted = draw.random(80) < 0.5
        told = np.where(draw.random(80) < math.e / (1 + math.e), planted, ~planted)
        bound, _ = epsilon_bound((told + draw.random(80)).tolist(), planted.tolist(), 0.0)
        exceeded += bound > 1
    assert exceeded <= 16  # P[more than 16 of 200 at a rate of 5 %] < 0.03


def test_bound_of_perfect_guesses_is_that_of_their_number() -> None:
    planted = [True] * 40 + [False] * 40
    bound, p_value = epsilon_bound([1.0] * 40 + [0.0] * 40, planted, 0.0)
    share = (0.05 / 3) ** (1 / 80)
    assert bound == pytest.approx(math.log(share / (1 - share)), abs=1e-6)
    assert p_value < 1e-12


def test_scores_without_information_prove_nothing() -> None:
    draw = np.random.default_rng(4)
    bound, p_value = epsilon_bound([0.0] * 90, (draw.random(90) < 0.5).tolist(), 1e-5)
    assert (bound, p_value > 0.05) == (0, True)
