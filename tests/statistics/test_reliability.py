"""Coverage against the normal distribution, reliability against scikit-learn."""

import numpy as np
import pytest
from scipy import special
from sklearn import calibration as sk_calibration
from sklearn import metrics as sk

from jaxcxr.statistics import reliability


def test_a_calibrated_model_covers_what_it_says():
    rng = np.random.default_rng(0)
    sigma = rng.uniform(0.5, 2.0, (200_000, 1))
    error = rng.normal(size=(200_000, 3)) * sigma
    for level, share in reliability.coverage(error, sigma).items():
        assert share == pytest.approx(level, abs=3e-3)
    sure = reliability.coverage(error, sigma / 2)
    assert sure[0.95] == pytest.approx(0.673, abs=3e-3)  # P(|z| < 0.98)


def test_bounds_count_and_mistakes_are_refused():
    assert reliability.coverage([0.0, 1.0, 9.0], 1.0, (0.9,)) == {0.9: 2 / 3}
    for error, sigma in (([1.0], 0.0), ([1.0], np.nan), (np.zeros(0), 1.0)):
        with pytest.raises(ValueError, match="above 0"):
            reliability.coverage(error, sigma)


def example(n=500, decimals=8, seed=0):
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 2 - 1
    labels = (rng.random(n) < special.expit(logits)).astype(int)
    return labels, np.round(special.expit(1.7 * logits), decimals)


@pytest.mark.parametrize("decimals", [1, 8])
def test_bins_are_scikit_learns(decimals):
    labels, values = example(decimals=decimals)
    observed, predicted = sk_calibration.calibration_curve(
        labels, values, n_bins=10, strategy="quantile"
    )
    found = reliability.reliability(labels, values, 10)
    np.testing.assert_allclose(found.observed, observed)
    np.testing.assert_allclose(found.predicted, predicted)
    assert found.count.sum() == 500
    if decimals == 8:
        assert found.count.tolist() == [50] * 10
    low, high = found.intervals()
    assert ((low <= found.observed) & (found.observed <= high)).all()


def test_the_error_is_0_for_the_truth_and_known_for_a_shift():
    rng = np.random.default_rng(0)
    values = rng.uniform(0.2, 0.8, 400_000)
    labels = rng.random(400_000) < values
    assert reliability.reliability(labels, values).ece < 0.005
    assert reliability.reliability(labels, values + 0.1).ece == pytest.approx(0.1, abs=0.003)
    assert np.isnan(reliability.reliability([], []).ece)


def test_the_brier_score_is_the_sum_of_its_parts():
    labels, values = example()
    parts = reliability.brier_parts(labels, values)
    assert parts["brier"] == pytest.approx(sk.brier_score_loss(labels, values))
    total = parts["miscalibration"] - parts["discrimination"] + parts["uncertainty"]
    assert total == pytest.approx(parts["brier"])
    assert min(parts.values()) >= 0
    # What is constant within few values has Murphy's exact decomposition.
    few = np.where(values > 0.5, 0.7, 0.1)
    parts = reliability.brier_parts(labels, few)
    shares = [labels[few == p].mean() for p in (0.7, 0.1)]
    weights = [(few == p).mean() for p in (0.7, 0.1)]
    expected = np.dot(weights, (np.array([0.7, 0.1]) - shares) ** 2)
    assert parts["miscalibration"] == pytest.approx(expected)
    expected = np.dot(weights, (np.array(shares) - labels.mean()) ** 2)
    assert parts["discrimination"] == pytest.approx(expected)
