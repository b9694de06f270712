import math
import time

import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.statistics import intervals, ranking


def example(n=300, seed=0, decimals=1, prevalence=0.2):
    """Labels and scores with ties."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) < prevalence).astype(np.int8)
    return labels, np.round(rng.normal(size=n) + labels, decimals)


@pytest.mark.parametrize("decimals", [0, 1, 8])
def test_f1_max_is_the_best_of_all_thresholds(decimals):
    labels, scores = example(decimals=decimals)
    best = max(
        (sk.f1_score(labels, scores >= threshold), threshold) for threshold in np.unique(scores)
    )
    value, threshold = ranking.f1_max(labels, scores)
    assert value == pytest.approx(best[0], abs=1e-12)
    assert threshold == best[1]
    unknown = ranking.f1_max(np.append(labels, -1), np.append(scores, 99.0))
    assert unknown == (value, threshold)
    assert np.isnan(ranking.f1_max(np.ones(4), np.arange(4.0))).all()


@pytest.mark.parametrize("specificity", [0.0, 0.5, 0.9, 1.0])
def test_sensitivity_at_a_specificity_is_read_off_the_roc_curve(specificity):
    labels, scores = example(decimals=1)
    false_rate, true_rate, _ = sk.roc_curve(labels, scores, drop_intermediate=False)
    expected = true_rate[false_rate <= 1 - specificity + 1e-12].max()
    value = ranking.sensitivity_at(np.append(labels, -1), np.append(scores, 99.0), specificity)
    assert value == pytest.approx(expected, abs=1e-12)
    assert np.isnan(ranking.sensitivity_at(np.ones(3), np.arange(3.0)))


def test_resamples_are_scikit_learns_with_sample_weight():
    rng = np.random.default_rng(3)
    labels = rng.integers(-1, 2, (200, 3))
    labels[:, 1] = np.where(np.arange(200) < 2, 1, np.minimum(labels[:, 1], 0))
    scores = np.round(rng.normal(size=labels.shape) + 0.7 * labels, 1)
    patients = rng.integers(0, 40, 200)
    result = ranking.cluster_bootstrap(labels, scores, patients, resamples=40, seed=5)
    # The same draws, as weights of examples.
    names, index = np.unique(patients, return_inverse=True)
    random = np.random.default_rng(5)
    drawn = [intervals.with_replacement(random, len(names), n) for n in (7, 33)]
    weights = np.concatenate(drawn, axis=1)
    assert (weights.sum(axis=0) == len(names)).all()
    compared = 0
    for c, b in np.ndindex(3, 40):
        known = labels[:, c] >= 0
        weight = weights[index, b] * known
        ours = [result.values[name][c, b] for name in ranking.MEASURES]
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


def test_macro_leaves_out_resamples_that_lack_a_class():
    labels, scores = example(60)
    rare = np.zeros(60, np.int8)
    rare[np.argmax(scores)] = 1
    both = np.stack([labels, rare], axis=1)
    result = ranking.cluster_bootstrap(both, np.stack([scores] * 2, axis=1), np.arange(60), 200)
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
    single = ranking.cluster_bootstrap(labels[:, None], scores[:, None], patients, 300)
    four = [np.repeat(values, 4, axis=0) for values in (labels[:, None], scores[:, None], patients)]
    copied = ranking.cluster_bootstrap(*four, 300)
    for name in ranking.MEASURES:
        assert copied.interval(name, 0) == pytest.approx(single.interval(name, 0), abs=1e-12)

    def width(bounds):
        return bounds[1] - bounds[0]

    delong = width(intervals.delong(labels, scores).interval)
    delong_copied = width(intervals.delong(four[0][:, 0], four[1][:, 0]).interval)
    assert delong_copied == pytest.approx(delong / 2, rel=0.02)
    assert width(copied.interval("auroc", 0)) > 1.5 * delong_copied
    # Taking each copy for a patient of its own would make DeLong's mistake.
    apart = ranking.cluster_bootstrap(*four[:2], np.arange(1600), 300)
    assert width(apart.interval("auroc", 0)) == pytest.approx(delong_copied, rel=0.15)


def test_independent_images_have_delongs_interval_in_the_bootstrap():
    labels, scores = example(2000, decimals=8)
    result = ranking.cluster_bootstrap(labels[:, None], scores[:, None], np.arange(2000))
    delong = intervals.delong(labels, scores)
    assert result.values["auroc"].std() == pytest.approx(math.sqrt(delong.variance), rel=0.08)
    assert result.interval("auroc", 0) == pytest.approx(delong.interval, abs=0.004)


def test_draws_depend_on_the_seed_and_not_on_the_order_or_the_blocks(monkeypatch):
    labels, scores = example()
    patients = np.array([f"p{i % 50}" for i in range(300)])
    arguments = (labels[:, None], scores[:, None], patients)
    first = ranking.cluster_bootstrap(*arguments, 50, seed=1).values["average_precision"]
    order = np.random.default_rng(0).permutation(300)
    shuffled = ranking.cluster_bootstrap(*(a[order] for a in arguments), 50, seed=1)
    np.testing.assert_array_equal(first, shuffled.values["average_precision"])
    monkeypatch.setattr(ranking, "_BLOCK", 7)
    blocks = ranking.cluster_bootstrap(*arguments, 50, seed=1)
    # NumPy adds up a block of one column in another order.
    np.testing.assert_allclose(first, blocks.values["average_precision"], rtol=1e-14)
    other = ranking.cluster_bootstrap(*arguments, 50, seed=2)
    assert (first != other.values["average_precision"]).mean() > 0.9


def test_one_patient_has_no_interval():
    labels, scores = example(60)
    both = np.stack([labels, np.where(np.arange(60) < 30, labels, -1)], axis=1)
    patients = np.repeat([3, 9], 30)
    result = ranking.cluster_bootstrap(both, np.stack([scores] * 2, axis=1), patients, 20)
    assert result.undefined[1] == 20
    assert np.isnan(result.interval("f1_max", 1)).all()
    assert not np.isnan(result.interval("f1_max", 0)).any()


def test_size_of_the_official_test_split():
    """22,000 x 14 with a tenth of the resamples; the bound is far above the 0.2 s it takes."""
    rng = np.random.default_rng(0)
    labels = (rng.random((22_000, 14)) < np.geomspace(0.004, 0.25, 14)).astype(np.int8)
    scores = rng.normal(size=labels.shape) + labels
    start = time.process_time()
    result = ranking.cluster_bootstrap(labels, scores, rng.integers(0, 2800, 22_000), 100)
    assert time.process_time() - start < 3.0
    assert result.values["auroc"].shape == (14, 100)
    assert not result.undefined.any()
    expected = sk.roc_auc_score(labels[:, 13], scores[:, 13])
    assert result.values["auroc"][13].mean() == pytest.approx(expected, abs=0.003)


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    labels = (random.random(300) < 0.3).astype(int)
    labels[:20] = -1
    scores = np.round(random.normal(size=300) + labels, 1)  # with ties
    return labels, scores, np.arange(300) // 3


def test_the_curve_is_scikit_learns(data):
    labels, scores, patients = data
    roc, pr = ranking.roc_and_pr(labels, scores, patients, resamples=5)
    known = labels >= 0
    fpr, tpr, _ = sk.roc_curve(labels[known], scores[known], drop_intermediate=False)
    # Where the curve rises straight up, either end is right.
    steps = np.isin(roc.x, fpr)
    np.testing.assert_allclose(roc.y[~steps], np.interp(roc.x, fpr, tpr)[~steps])
    precision, recall, _ = sk.precision_recall_curve(labels[known], scores[known])
    for x, y in zip(pr.x, pr.y, strict=True):
        reaches = np.flatnonzero(recall >= x - 1e-12)
        highest = reaches[-1]
        if recall[highest] == 0:  # scikit-learn's end, of no threshold
            highest -= 1
        assert y == pytest.approx(precision[highest])


def test_the_band_is_around_and_of_whole_patients(data):
    labels, scores, patients = data
    roc, _ = ranking.roc_and_pr(labels, scores, patients, resamples=100)
    assert (roc.low <= roc.high).all()
    inside = (roc.low <= roc.y + 1e-9) & (roc.y <= roc.high + 1e-9)
    assert inside.mean() > 0.95
    one = ranking.roc_and_pr(labels, scores, np.zeros(300), resamples=20)[0]
    np.testing.assert_allclose(one.low, one.high)  # one patient: nothing to draw


def test_one_label_value_has_no_curve():
    ones = np.array([1, 1, -1])
    assert ranking.roc_and_pr(ones, np.arange(3.0), np.arange(3)) is None
