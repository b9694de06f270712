"""Fits of calibration against scikit-learn and SciPy, thresholds against all there are."""

import numpy as np
import pytest
from scipy import optimize, special
from sklearn import calibration as sk_calibration
from sklearn import frozen, isotonic
from sklearn import metrics as sk
from sklearn.base import BaseEstimator, ClassifierMixin

from jaxcxr.statistics import recalibration


def example(n=600, slope=0.5, intercept=-1.5, seed=0):
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
    labels, logits = example()
    theirs = sk_calibration.CalibratedClassifierCV(frozen.FrozenEstimator(Model()), method=method)
    theirs.fit(logits[:, None], labels)
    new = np.linspace(-12, 12, 501)
    expected = theirs.predict_proba(new[:, None])[:, 1]
    if method == "sigmoid":
        slope, intercept = recalibration.platt(labels, logits)
        ours = special.expit(slope * new + intercept)
    else:
        ours = np.interp(new, *recalibration.isotonic(labels, logits))
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_temperature_is_the_optimum_of_the_likelihood():
    labels, logits = example(intercept=0.0)

    def loss(values):
        return sk.log_loss(labels, special.expit(logits / values[0]))

    expected = optimize.minimize(loss, [1.0], method="Nelder-Mead", options={"xatol": 1e-7}).x[0]
    assert recalibration.temperature(labels, logits) == pytest.approx(expected, rel=1e-4)
    many, far = example(60_000, slope=0.4, intercept=0.0)
    assert recalibration.temperature(many, far) == pytest.approx(2.5, rel=0.05)


def test_fits_of_separable_and_reversed_labels_are_finite():
    _, logits = example()
    separable = (logits > 0.3).astype(int)
    assert recalibration.temperature(separable, logits * 1e-3) == pytest.approx(0.05)
    assert np.isfinite(recalibration.platt(separable, logits)).all()
    labels, logits = example(slope=-0.5)
    slope, intercept = recalibration.platt(labels, logits)
    assert slope == recalibration.LEAST_SLOPE
    mean = special.expit(slope * logits + intercept).mean()
    assert mean == pytest.approx(labels.mean(), abs=0.005)
    assert recalibration.temperature(labels, logits) == pytest.approx(20.0)


@pytest.mark.parametrize("decimals", [1, 8])
def test_thresholds_are_the_best_of_all(decimals):
    labels, logits = example(250)
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
        assert recalibration.threshold(labels, scores, rule, 0.8) == expected, rule
    with pytest.raises(ValueError, match="youden"):
        recalibration.threshold(labels, scores, "best")


def test_a_specificity_that_no_finding_reaches_finds_nothing():
    labels, scores = np.array([0, 1, 0, 1]), np.array([0.9, 0.5, 0.2, 0.1])
    value = recalibration.threshold(labels, scores, "specificity", 0.9)
    assert value > 0.9
    assert not (scores >= value).any()


def test_isotonic_is_the_projection_onto_monotone_functions():
    labels, logits = example(80)
    x, y = recalibration.isotonic(labels, logits)
    fitted = np.interp(logits, x, y)
    order = np.argsort(logits)
    expected = isotonic.isotonic_regression(labels[order].astype(float))
    np.testing.assert_allclose(fitted[order], expected, atol=1e-12)
