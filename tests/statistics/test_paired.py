"""Paired comparison against all pairs, SciPy, and what it says when nothing differs."""

import math

import numpy as np
import pytest
from scipy import stats

from jaxcxr.statistics import paired

RNG = np.random.default_rng(0)


def example(seed, n=200, gain=0.0):
    """Labels and two correlated scores, the second better by `gain`."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < 0.3).astype(np.int8)
    common = rng.normal(size=n)
    first = common + 0.7 * rng.normal(size=n) + labels
    return labels, first, common + 0.7 * rng.normal(size=n) + (1 + gain) * labels


def wins(labels, scores):
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    return (pairs > 0) + 0.5 * (pairs == 0)


def test_delong_is_the_variance_of_the_difference_of_all_pairs():
    labels, first, second = example(0, gain=0.3)
    difference = wins(labels, second) - wins(labels, first)
    of_positives, of_negatives = difference.mean(axis=1), difference.mean(axis=0)
    deviation = np.sqrt(stats.sem(of_positives) ** 2 + stats.sem(of_negatives) ** 2)
    found = paired.delong(np.append(labels, -1), np.append(first, 0), np.append(second, 9))
    assert found.value == pytest.approx(difference.mean(), abs=1e-12)
    expected = stats.norm(difference.mean(), deviation)
    assert found.interval == pytest.approx(expected.interval(0.95))
    assert found.p == pytest.approx(2 * stats.norm.sf(abs(difference.mean()) / deviation))
    back = paired.delong(labels, second, first)
    assert (back.value, back.p) == pytest.approx((-found.value, found.p))


def test_delong_of_seeds_is_of_the_mean_of_their_aurocs():
    labels, first, second = example(1)
    third = first + np.random.default_rng(9).normal(size=len(first))
    difference = wins(labels, second) - (wins(labels, first) + wins(labels, third)) / 2
    variance = (stats.sem(difference.mean(axis=1)) ** 2 + stats.sem(difference.mean(axis=0)) ** 2)
    found = paired.delong(labels, np.stack([first, third]), second)
    assert found.value == pytest.approx(difference.mean())
    half = (found.interval[1] - found.interval[0]) / 2
    assert half == pytest.approx(1.959964 * np.sqrt(variance))


def test_equal_scores_differ_by_nothing():
    labels, first, _ = example(0)
    same = paired.delong(labels, first, first)
    assert (same.value, same.p) == (0.0, 1.0)
    # Any rising function ranks alike.
    alike = paired.delong(labels, first, np.exp(first))
    assert alike.p == 1.0
    few = paired.delong(np.array([1, 0, 0]), np.arange(3.0), -np.arange(3.0))
    assert few.value == 1.0
    assert np.isnan([few.p, *few.interval]).all()
    assert np.isnan(paired.delong(np.zeros(3), np.arange(3.0), np.arange(3.0)).value)


def test_p_values_are_uniform_when_models_are_alike():
    p = [paired.delong(*example(seed)).p for seed in range(600)]
    assert stats.kstest(p, "uniform").pvalue > 0.01
    assert np.mean(np.array(p) < 0.05) == pytest.approx(0.05, abs=0.025)


def test_resamples_give_percentiles_and_a_p_that_is_never_0():
    draws = np.append(np.random.default_rng(0).normal(0.2, 0.1, 2000), np.nan)
    found = paired.resampled(0.2, draws)
    assert found.interval == pytest.approx((0.2 - 0.196, 0.2 + 0.196), abs=0.012)
    assert found.p == pytest.approx(2 * stats.norm.sf(2), abs=0.02)
    assert paired.resampled(5.0, np.full(999, 5.0)).p == 2 / 1000
    assert paired.resampled(0.0, np.zeros(99)).p == 1.0
    assert np.isnan(paired.resampled(0.2, np.full(3, np.nan)).p)


def test_seeds_are_compared_by_welch():
    rng = np.random.default_rng(0)
    first, second = rng.normal(0.80, 0.01, 4), rng.normal(0.83, 0.03, 3)
    found = paired.seeds(first, second)
    assert found.value == pytest.approx(second.mean() - first.mean())
    assert found.p == pytest.approx(stats.ttest_ind(first, second, equal_var=False).pvalue)
    assert found.interval[0] < found.value < found.interval[1]
    assert paired.seeds(first[:1], second) is paired.NONE
    assert paired.seeds([0.8, 0.8], [0.9, 0.9]) is paired.NONE
    assert paired.seeds([0.8, 0.8 + 1e-16], [0.9, 0.91]) is paired.NONE
    assert paired.seeds([np.nan, np.nan], [0.9, 0.91]) is paired.NONE


def test_holm_by_hand():
    # sorted 0.01, 0.03, 0.04 times 3, 2, 1 is 0.03, 0.06, 0.04; none may fall below one before
    np.testing.assert_allclose(
        paired.holm([0.04, math.nan, 0.01, 0.03]), [0.06, math.nan, 0.03, 0.06]
    )
    np.testing.assert_allclose(paired.holm([0.9, 0.8]), [1, 1])
    assert paired.holm([]) == []


@pytest.mark.parametrize("count", [2, 3, 10])
def test_interval_is_scipys(count):
    values = RNG.normal(0.7, 0.05, count)
    found = paired.t_interval(values)
    low, high = stats.t.interval(0.95, count - 1, values.mean(), stats.sem(values))
    np.testing.assert_allclose(found, (low, high))


def test_one_value_has_no_interval():
    assert np.isnan(paired.t_interval([0.7])).all()


def test_paired_difference_is_scipys_over_the_seeds_both_have():
    values, reference = RNG.normal(0.7, 0.05, 4), RNG.normal(0.7, 0.05, 4)
    found = paired.same_seeds(
        {9: 0.9, **dict(reversed([*enumerate(reference)]))}, {**dict(enumerate(values)), 8: 0.1}
    )
    test = stats.ttest_rel(values, reference)
    ends = test.confidence_interval(0.95)
    np.testing.assert_allclose(found.p, test.pvalue)
    np.testing.assert_allclose(
        (found.value, *found.interval), ((values - reference).mean(), ends.low, ends.high)
    )


def test_paired_difference_without_a_test():
    assert paired.same_seeds({1: 0.6}, {0: 0.7}) is paired.NONE
    found = paired.same_seeds({0: 0.5}, {0: 0.75})
    assert found.value == 0.25
    assert np.isnan([*found.interval, found.p]).all()
    found = paired.same_seeds({0: 0.5, 1: 0.25}, {0: 0.75, 1: 0.5})
    assert (found.value, *found.interval) == (0.25, 0.25, 0.25)
    assert math.isnan(found.p)
