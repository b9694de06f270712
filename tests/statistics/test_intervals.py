import math

import numpy as np
import pytest
from scipy import stats
from sklearn import metrics as sk

from jaxcxr.statistics import intervals


def example(n=300, seed=0, decimals=1, prevalence=0.2):
    """Labels and scores with ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(np.int8)
    return labels, np.round(rng.normal(size=n) + labels, decimals)


def placements(labels, scores):
    """Share of wins of each positive and of each negative, by comparing all pairs."""
    pairs = scores[labels == 1][:, None] - scores[labels == 0][None]
    wins = (pairs > 0) + 0.5 * (pairs == 0)
    return wins.mean(axis=1), wins.mean(axis=0)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_delong_is_the_variance_of_all_pairs(decimals):
    labels, scores = example(decimals=decimals)
    of_positives, of_negatives = placements(labels, scores)
    variance = stats.sem(of_positives) ** 2 + stats.sem(of_negatives) ** 2
    result = intervals.delong(labels, scores)
    assert result.auroc == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    assert result.variance == pytest.approx(variance, rel=1e-12)
    low, high = result.interval
    odds = [a / (1 - a) for a in (low, result.auroc, high)]
    assert odds[1] / odds[0] == pytest.approx(odds[2] / odds[1])
    width = math.log(odds[2] / odds[1]) * result.auroc * (1 - result.auroc)
    assert width == pytest.approx(1.959964 * math.sqrt(variance), rel=1e-6)


def test_covariance_of_two_scores_is_that_of_all_pairs():
    labels, first = example()
    second = np.round(first + np.random.default_rng(1).normal(size=len(first)), 1)
    aurocs, covariance = intervals.delong_covariance(labels, np.stack([first, second, first]))
    a, b = placements(labels, first), placements(labels, second)
    m, n = len(a[0]), len(a[1])
    expected = np.cov(a[0], b[0])[0, 1] / m + np.cov(a[1], b[1])[0, 1] / n
    assert covariance[0, 1] == pytest.approx(expected, rel=1e-12)
    assert covariance[0, 0] == pytest.approx(intervals.delong(labels, first).variance, rel=1e-12)
    assert covariance[0, 2] == pytest.approx(covariance[0, 0], rel=1e-12)
    assert aurocs[1] == pytest.approx(sk.roc_auc_score(labels, second), abs=1e-12)


@pytest.mark.parametrize("separation", [0.5, 1.5, 2.2])
def test_delong_interval_covers_the_true_auroc(separation):
    rng = np.random.default_rng(0)
    truth = stats.norm.cdf(separation / math.sqrt(2))  # of two normals, analytic
    labels = np.repeat([1, 0], [40, 80])
    covered = []
    for _ in range(1500):
        low, high = intervals.delong(labels, rng.normal(size=120) + separation * labels).interval
        covered.append(low <= truth <= high)
    assert 0.93 <= np.mean(covered) <= 0.97


def test_complete_separation_has_the_binomial_interval():
    scores = np.arange(30.0)
    labels = (scores >= 22).astype(int)  # 8 positives, 22 negatives
    exact = stats.binomtest(8, 8).proportion_ci(0.95, method="exact")
    best = intervals.delong(labels, scores)
    assert (best.auroc, best.variance) == (1.0, 0.0)
    assert best.interval == pytest.approx((exact.low, 1.0))
    worst = intervals.delong(labels, -scores)
    assert worst.auroc == 0.0
    assert worst.interval == pytest.approx((0.0, 1 - exact.low))
    constant = intervals.delong(labels, np.zeros(30))
    assert (constant.auroc, constant.variance) == (0.5, 0.0)
    assert constant.interval == pytest.approx((0.5, 0.5))


def test_delong_with_too_few_examples_and_with_unknown_ones():
    single = intervals.delong(np.array([1, 0, 0]), np.array([1.0, 0.0, 2.0]))
    assert single.auroc == 0.5
    assert np.isnan([single.variance, *single.interval]).all()
    none = intervals.delong(np.zeros(3), np.arange(3.0))
    assert np.isnan([none.auroc, none.variance, *none.interval]).all()
    labels, scores = example()
    longer = intervals.delong(np.append(labels, [-1] * 9), np.append(scores, np.arange(9.0)))
    assert longer == intervals.delong(labels, scores)


def test_intervals_are_percentiles_of_what_is_defined():
    values = np.append(np.random.default_rng(0).permutation(np.arange(201.0)), [np.nan] * 5)
    assert intervals.percentile_interval(values) == pytest.approx((5.0, 195.0))
    assert intervals.percentile_interval(values, 0.9) == pytest.approx((10.0, 190.0))
    assert np.isnan(intervals.percentile_interval(np.full(3, np.nan))).all()
    few = np.where(np.arange(100) < 49, np.arange(100.0), np.nan)
    assert np.isnan(intervals.percentile_interval(few)).all()
    few[60] = 60.0
    assert intervals.percentile_interval(few)[1] > 47


def test_classes_of_few_patients():
    patients = np.repeat(np.arange(30), 2)
    labels = np.zeros((60, 5), np.int8)
    labels[:18, 0] = 1  # 9 patients
    labels[:20, 1] = 1  # 10 patients
    labels[:41, 2] = 1  # 10 patients without, one of whom has it too
    labels[:43, 3] = 1  # 9 patients without
    labels[:, 4] = np.where(np.arange(60) < 40, -1, 1)  # nobody without
    few = intervals.few_clusters(labels, np.array([f"p{p}" for p in patients]))
    assert few.tolist() == [True, False, False, True, False]
    labels[0, 4] = 0
    assert intervals.few_clusters(labels, patients)[4]


def test_resamples_are_scipys():
    rng = np.random.default_rng(0)
    values = rng.exponential(size=80)
    theirs = stats.bootstrap(
        (values,), np.mean, n_resamples=500, batch=100, method="percentile",
        rng=np.random.default_rng(3),
    )
    drawn = intervals.Groups.of(np.arange(80)).resample(lambda c: values @ c / 80, 500, seed=3)
    np.testing.assert_allclose(drawn, theirs.bootstrap_distribution, rtol=1e-12)
    assert intervals.percentile_interval(drawn) == pytest.approx(theirs.confidence_interval)


def test_resamples_of_groups_are_scipys_of_their_sums():
    rng = np.random.default_rng(1)
    names, values = rng.choice(list("abcdefghijkl"), 200), rng.normal(size=200)
    groups = intervals.Groups.of(names)
    assert (groups.count, set(groups.index)) == (12, set(range(12)))
    sums, sizes = groups.sums(values), groups.sums(np.ones(200))
    for one, name in enumerate("abcdefghijkl"):
        assert sums[one] == pytest.approx(values[names == name].sum())
    drawn = groups.resample(lambda c: np.stack([sums @ c, sizes @ c]), 300, seed=5)
    theirs = stats.bootstrap(
        (sums, sizes), lambda x, y, axis: x.sum(axis) / y.sum(axis), n_resamples=300, paired=True,
        method="percentile", rng=np.random.default_rng(5),
    )
    np.testing.assert_allclose(drawn[0] / drawn[1], theirs.bootstrap_distribution, rtol=1e-12)


def test_the_same_seed_pairs_two_statistics_whatever_the_block():
    groups = intervals.Groups.of(np.arange(30) // 2)
    whole = groups.resample(lambda c: c, 100, seed=2)
    assert whole.shape == (15, 100)
    assert (whole.sum(axis=0) == 15).all()
    np.testing.assert_array_equal(whole, groups.resample(lambda c: c, 100, seed=2, block=7))
    assert (whole != groups.resample(lambda c: c, 100, seed=3)).any()


def test_one_group_fewer_gives_means_their_unbiased_variance():
    values = np.array([1.0, 2.0, 4.0, 9.0])
    groups = intervals.Groups.of(np.arange(4))
    counts = groups.resample(lambda c: c, 40_000, seed=1, draw=intervals.one_fewer)
    assert (counts.sum(axis=0) == 3).all()
    means = values @ counts / 3
    assert means.mean() == pytest.approx(values.mean(), abs=0.03)
    assert means.std() == pytest.approx(stats.sem(values), rel=0.01)
    n_of_n = values @ groups.resample(lambda c: c, 40_000, seed=1) / 4
    assert n_of_n.std() == pytest.approx(stats.sem(values) * math.sqrt(3 / 4), rel=0.01)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_groups_have_no_spread(count):
    drawn = intervals.Groups.of(np.zeros(count)).resample(lambda c: np.stack([c.sum(0)] * 3), 20)
    assert drawn.shape == (3, 20)
    assert np.isnan(drawn).all()
