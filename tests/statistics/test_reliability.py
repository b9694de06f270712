"""Coverage against the normal distribution, reliability against scikit-learn."""


import numpy as np
import pytest
from scipy import optimize, special
from sklearn import calibration as sk_calibration
from sklearn import frozen, isotonic
from sklearn import metrics as sk
from sklearn.base import BaseEstimator, ClassifierMixin

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


def logit_example(n=600, slope=0.5, intercept=-1.5, seed=0):
    """Labels whose true probability is sigmoid(slope logit + intercept)."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=n) * 3
    labels = (rng.random(n) < special.expit(slope * logits + intercept)).astype(np.int8)
    return labels, logits


class Model(ClassifierMixin, BaseEstimator):
    """A fitted classifier whose decision function is the first column."""

    classes_ = np.array([0, 1])

    def __sklearn_is_fitted__(self):
        return True

    def fit(self, inputs, labels):
        return self

    def decision_function(self, inputs):
        return inputs[:, 0]

    def predict(self, inputs):
        return (inputs[:, 0] > 0).astype(int)


@pytest.mark.parametrize("method", ["sigmoid", "isotonic"])
def test_platt_and_isotonic_are_scikit_learns(method):
    labels, logits = logit_example()
    theirs = sk_calibration.CalibratedClassifierCV(frozen.FrozenEstimator(Model()), method=method)
    theirs.fit(logits[:, None], labels)
    new = np.linspace(-12, 12, 501)
    expected = theirs.predict_proba(new[:, None])[:, 1]
    if method == "sigmoid":
        slope, intercept = reliability.platt(labels, logits)
        ours = special.expit(slope * new + intercept)
    else:
        ours = np.interp(new, *reliability.isotonic(labels, logits))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_temperature_is_the_optimum_of_the_likelihood():
    labels, logits = logit_example(intercept=0.0)

    def loss(values):
        return sk.log_loss(labels, special.expit(logits / values[0]))

    expected = optimize.minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7}).x[0]
    assert reliability.temperature(labels, logits) == pytest.approx(expected, rel=1e-4)
    many, far = logit_example(60_000, slope=0.4, intercept=0.0)
    assert reliability.temperature(many, far) == pytest.approx(2.5, rel=0.05)


def test_fits_of_separable_and_reversed_labels_are_finite():
    _, logits = logit_example()
    separable = (logits > 0.3).astype(int)
    assert reliability.temperature(separable, logits * 1e-3) == pytest.approx(0.05)
    assert np.isfinite(reliability.platt(separable, logits)).all()
    labels, logits = logit_example(slope=-0.5)
    slope, intercept = reliability.platt(labels, logits)
    assert slope == reliability.LEAST_SLOPE
    mean = special.expit(slope * logits + intercept).mean()
    assert mean == pytest.approx(labels.mean(), abs=0.005)
    assert reliability.temperature(labels, logits) == pytest.approx(20.0)


@pytest.mark.parametrize("decimals", [1, 8])
def test_thresholds_are_the_best_of_all(decimals):
    labels, logits = logit_example(250)
    scores = np.round(special.expit(logits), decimals)
    rows = []
    for value in [np.nextafter(scores.max(), 2), *np.unique(scores)[::-1]]:
        found = scores >= value
        rows.append((value, found[labels == 1].mean(), (~found)[labels == 0].mean(),
                     sk.f1_score(labels, found)))
    values, sensitivity, specificity, f1 = np.array(rows).T
    for rule, gain in (
        ("f1", f1), ("youden", sensitivity + specificity),
        ("sensitivity", np.where(sensitivity >= 0.8 - 1e-12, specificity, -1)),
        ("specificity", np.where(specificity >= 0.8 - 1e-12, sensitivity, -1)),
    ):
        expected = values[np.isclose(gain, gain.max(), rtol=0, atol=1e-12)].max()
        assert reliability.threshold(labels, scores, rule, 0.8) == expected, rule
    with pytest.raises(ValueError, match="youden"):
        reliability.threshold(labels, scores, "best")


def test_a_specificity_that_no_finding_reaches_finds_nothing():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.9, 0.5, 0.2, 0.1])
    value = reliability.threshold(labels, scores, "specificity", 0.9)
    assert value > 0.9
    assert not (scores >= value).any()


def test_isotonic_is_the_projection_onto_monotone_functions():
    labels, logits = logit_example(80)
    x, y = reliability.isotonic(labels, logits)
    fitted = np.interp(logits, x, y)
    order = np.argsort(logits)
    expected = isotonic.isotonic_regression(labels[order].astype(float))
    np.testing.assert_allclose(fitted[order], expected, atol=1e-12)
