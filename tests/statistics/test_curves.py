import numpy as np
import pytest
from sklearn import metrics as sk

from jaxcxr.statistics import curves


@pytest.fixture
def data():
    random = np.random.default_rng(0)
    labels = (random.random(300) < 0.3).astype(int)
    labels[:20] = -1
    scores = np.round(random.normal(size=300) + labels, 1)  # with ties
    return labels, scores, np.arange(300) // 3


def test_the_curve_is_scikit_learns(data):
    labels, scores, patients = data
    roc, pr = curves.roc_and_pr(labels, scores, patients, resamples=5)
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
    roc, _ = curves.roc_and_pr(labels, scores, patients, resamples=100)
    assert (roc.low <= roc.high).all()
    inside = (roc.low <= roc.y + 1e-9) & (roc.y <= roc.high + 1e-9)
    assert inside.mean() > 0.95
    one = curves.roc_and_pr(labels, scores, np.zeros(300), resamples=20)[0]
    np.testing.assert_allclose(one.low, one.high)  # one patient: nothing to draw


def test_one_label_value_has_no_curve():
    ones = np.array([1, 1, -1])
    assert curves.roc_and_pr(ones, np.arange(3.0), np.arange(3)) is None
