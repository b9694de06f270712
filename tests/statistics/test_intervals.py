import math
import time

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


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_f1_max_is_the_best_of_all_thresholds(decimals):
    labels, scores = example(decimals=decimals)
    best = max(
        (sk.f1_score(labels, scores >= threshold), threshold) for threshold in np.unique(scores)
    )
    value, threshold = intervals.f1_max(labels, scores)
    assert value == pytest.approx(best[0], abs=1e-12)
    assert threshold == best[1]
    unknown = intervals.f1_max(np.append(labels, -1), np.append(scores, 99.0))
    assert unknown == (value, threshold)
    assert np.isnan(intervals.f1_max(np.ones(4), np.arange(4.0))).all()


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 1.0])
def test_sensitivity_at_a_specificity_is_read_off_the_roc_curve(specificity):
    labels, scores = example(decimals=1)
    false_rate, true_rate, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    expected = true_rate[false_rate <= 1 - specificity + 1e-12].max()
    value = intervals.sensitivity_at(np.append(labels, -1), np.append(scores, 99.0), specificity)
    assert value == pytest.approx(expected, abs=1e-12)
    assert np.isnan(intervals.sensitivity_at(np.ones(3), np.arange(3.0)))


def test_resamples_are_scikit_learns_with_sample_weight():
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 2, (200, 3))
    labels[:, 1] = np.where(np.arange(200) < 2, 1, np.minimum(labels[:, 1], 0))
    scores = np.round(rng.normal(size=labels.shape) + 0.7 * labels, 1)
    patients = rng.integers(0, 40, 200)
    result = intervals.cluster_bootstrap(labels, scores, patients, resamples=40, seed=5)
    # The same draws, as weights of examples.
    names, index = np.unique(patients, return_inverse=True)
    random = np.random.default_rng(5)
    weights = np.concatenate([intervals.draws(random, len(names), n) for n in (7, 33)], axis=1)
    assert (weights.sum(axis=0) == len(names)).all()
    compared = 0
    for c, b in np.ndindex(3, 40):
        known = labels[:, c] >= 0
        weight = weights[index, b] * known
        ours = [result.values[name][c, b] for name in intervals.STATISTICS]
        if len(np.unique(labels[weight > 0, c])) < 2:
            assert np.isnan(ours).all()
            continue
        y, s, w = labels[known, c], scores[known, c], weight[known]
        precision, recall, thresholds = sk.precision_recall_curve(y, s, sample_weight=w)
        total = np.maximum(precision + recall, 1e-9)[:-1]
        f1 = (2 * precision[:-1] * recall[:-1]) / total
        theirs = [
            sk.roc_auc_score(y, s, sample_weight=w),
            sk.average_precision_score(y, s, sample_weight=w),
            f1.max(),
        ]
        np.testing.assert_allclose(ours[:3], theirs, atol=1e-12)
        false_rate, true_rate, _ = sk.roc_curve(y, s, sample_weight=w, drop_intermediate=False)
        expected = true_rate[false_rate <= 0.1 + 1e-9].max()
        assert ours[4] == pytest.approx(expected, abs=1e-12)
        assert f1[list(thresholds).index(ours[3])] == pytest.approx(f1.max(), abs=1e-12)
        compared += 1
    assert compared == 120 - result.undefined.sum()
    assert 0 < result.undefined[1] < 40


def test_intervals_are_percentiles_of_what_is_defined():
    values = np.append(np.random.default_rng(0).permutation(np.arange(201.0)), [np.nan] * 5)
    assert intervals.percentile_interval(values) == pytest.approx((5.0, 195.0))
    assert intervals.percentile_interval(values, 0.9) == pytest.approx((10.0, 190.0))
    assert np.isnan(intervals.percentile_interval(np.full(3, np.nan))).all()
    few = np.where(np.arange(100) < 49, np.arange(100.0), np.nan)
    assert np.isnan(intervals.percentile_interval(few)).all()
    few[60] = 60.0
    assert intervals.percentile_interval(few)[1] > 47


def test_macro_leaves_out_resamples_that_lack_a_class():
    labels, scores = example(60)
    rare = np.zeros(60, np.int8)
    rare[np.argmax(scores)] = 1
    both = np.stack([labels, rare], axis=1)
    result = intervals.cluster_bootstrap(both, np.stack([scores] * 2, axis=1), np.arange(60), 200)
    macro = result.macro("auroc", [0, 1])
    # One example of 60 is in none of the draws with probability (1 - 1/60)^60 = 0.365.
    assert 40 < np.isnan(macro).sum() < 110
    assert np.isnan(macro).sum() == result.undefined[1]
    kept = ~np.isnan(macro)
    np.testing.assert_allclose(macro[kept], result.values["auroc"][:, kept].mean(axis=0))
    assert not np.isnan(result.macro("auroc", [0])).any()
    assert np.isnan(result.macro("auroc", [])).all()


def test_copies_of_images_narrow_delong_but_not_the_bootstrap_of_patients():
    labels, scores = example(400, prevalence=0.3, decimals=3)
    patients = np.random.default_rng(1).integers(0, 100, 400)
    single = intervals.cluster_bootstrap(labels[:, None], scores[:, None], patients, 300)
    four = [np.repeat(values, 4, axis=0) for values in (labels[:, None], scores[:, None], patients)]
    copied = intervals.cluster_bootstrap(*four, 300)
    for name in intervals.STATISTICS:
        assert copied.interval(name, 0) == pytest.approx(single.interval(name, 0), abs=1e-12)

    def width(bounds):
        return bounds[1] - bounds[0]

    delong = width(intervals.delong(labels, scores).interval)
    delong_copied = width(intervals.delong(four[0][:, 0], four[1][:, 0]).interval)
    assert delong_copied == pytest.approx(delong / 2, rel=0.02)
    assert width(copied.interval("auroc", 0)) > 1.5 * delong_copied
    # Taking each copy for a patient of its own would make DeLong's mistake.
    apart = intervals.cluster_bootstrap(*four[:2], np.arange(1600), 300)
    assert width(apart.interval("auroc", 0)) == pytest.approx(delong_copied, rel=0.15)


def test_independent_images_have_delongs_interval_in_the_bootstrap():
    labels, scores = example(2000, decimals=8)
    result = intervals.cluster_bootstrap(labels[:, None], scores[:, None], np.arange(2000))
    delong = intervals.delong(labels, scores)
    assert result.values["auroc"].std() == pytest.approx(math.sqrt(delong.variance), rel=0.08)
    assert result.interval("auroc", 0) == pytest.approx(delong.interval, abs=0.004)


def test_draws_depend_on_the_seed_and_not_on_the_order_or_the_blocks(monkeypatch):
    labels, scores = example()
    patients = np.array([f"p{i % 50}" for i in range(300)])
    arguments = (labels[:, None], scores[:, None], patients)
    first = intervals.cluster_bootstrap(*arguments, 50, seed=1).values["average_precision"]
    order = np.random.default_rng(0).permutation(300)
    shuffled = intervals.cluster_bootstrap(*(a[order] for a in arguments), 50, seed=1)
    np.testing.assert_array_equal(first, shuffled.values["average_precision"])
    monkeypatch.setattr(intervals, "_BLOCK", 7)
    blocks = intervals.cluster_bootstrap(*arguments, 50, seed=1)
    # NumPy adds up a block of one column in another order.
    np.testing.assert_allclose(first, blocks.values["average_precision"], rtol=1e-14)
    other = intervals.cluster_bootstrap(*arguments, 50, seed=2)
    assert (first != other.values["average_precision"]).mean() > 0.9


def test_one_patient_has_no_interval():
    labels, scores = example(60)
    both = np.stack([labels, np.where(np.arange(60) < 30, labels, -1)], axis=1)
    patients = np.repeat([3, 9], 30)
    result = intervals.cluster_bootstrap(both, np.stack([scores] * 2, axis=1), patients, 20)
    assert result.undefined[1] == 20
    assert np.isnan(result.interval("f1_max", 1)).all()
    assert not np.isnan(result.interval("f1_max", 0)).any()


def test_size_of_the_official_test_split():
    """22,000 x 14 with a tenth of the resamples; the bound is far above the 0.2 s it takes."""
    rng = np.random.default_rng(0)
    labels = (rng.random((22_000, 14)) < np.geomspace(0.004, 0.25, 14)).astype(np.int8)
    scores = rng.normal(size=labels.shape) + labels
    start = time.process_time()
    result = intervals.cluster_bootstrap(labels, scores, rng.integers(0, 2800, 22_000), 100)
    assert time.process_time() - start < 3.0
    assert result.values["auroc"].shape == (14, 100)
    assert not result.undefined.any()
    expected = sk.roc_auc_score(labels[:, 13], scores[:, 13])
    assert result.values["auroc"][13].mean() == pytest.approx(expected, abs=0.003)


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
