"""Weights of classes and probabilities of images, by hand, scikit-learn and simulation."""

import numpy as np
import pytest
from sklearn.utils.class_weight import compute_class_weight

from jaxcxr.xray import balance

LABELS = np.array([[1, 0, -1], [0, 0, -1], [1, -1, -1], [0, 1, -1], [0, 0, -1]], np.int8)


@pytest.mark.parametrize(("kind", "positive", "negative"), [
    # (positive, known) of the classes: (2, 5), (1, 4), (0, 0).
    ("chexnet", [3 / 5, 3 / 4, 1], [2 / 5, 1 / 4, 0]),
    ("thesis", [3 / 5, 3 / 4, 1], [2 / 5, 1 / 4, 0]),
    # beta 1/2: E(1), E(2), E(3) are 1, 3/2, 7/4; the weights are the inverses over their sum.
    ("effective_number", [7 / 13, 7 / 11, 1], [6 / 13, 4 / 11, 0]),
    ("none", [1, 1, 1], [1, 1, 1]),
])
def test_class_weights_by_hand(kind, positive, negative):
    found = balance.class_weights(LABELS, kind, beta=0.5)
    np.testing.assert_allclose(found, [positive, negative], rtol=1e-6)
    assert found[0].dtype == found[1].dtype == np.float32


@pytest.mark.parametrize("kind", ["thesis", "chexnet", "effective_number"])
def test_unknown_labels_never_count(kind):
    labels = np.random.default_rng(0).integers(-1, 2, (300, 4)).astype(np.int8)
    for c in range(4):
        column = labels[:, c : c + 1]
        found = balance.class_weights(column, kind, 0.99)
        expected = balance.class_weights(column[column[:, 0] >= 0], kind, 0.99)
        np.testing.assert_array_equal(found, expected)


def test_effective_numbers_lie_between_no_balance_and_chexnets_ratio():
    labels = (np.random.default_rng(0).random((2000, 3)) < [0.5, 0.1, 0.01]).astype(np.int8)
    ratio, _ = balance.class_weights(labels, "chexnet")
    np.testing.assert_allclose(balance.class_weights(labels, "effective_number", 0.0)[0], 0.5)
    near, _ = balance.class_weights(labels, "effective_number", 1 - 1e-9)
    np.testing.assert_allclose(near, ratio, rtol=1e-4)
    between, _ = balance.class_weights(labels, "effective_number", 0.99)
    assert (between[1:] > 0.5).all()
    assert (between[1:] < ratio[1:]).all()


@pytest.mark.parametrize("kind", ["thesis", "chexnet"])
def test_class_weights_have_the_ratio_of_scikit_learns_balanced_ones(kind):
    labels = LABELS[:, 0]
    negative, positive = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    ours = [weight[0] for weight in balance.class_weights(LABELS[:, :1], kind)]
    assert ours[0] / ours[1] == pytest.approx(positive / negative)


@pytest.mark.parametrize("kind", ["thesis", "chexnet", "effective_number"])
def test_a_class_that_is_always_there_gets_no_positive_weight(kind):
    positive, negative = balance.class_weights(np.array([[1], [1], [-1]], np.int8), kind)
    assert (positive[0], negative[0]) == (0, 1)


def test_plain_sampling_is_left_to_the_pipeline():
    assert balance.sampling(LABELS, np.array(["a"] * 5), "plain") is None


def test_balanced_classes_are_drawn_equally_often():
    # Positives: rows 0 and 2 of the first class, row 3 of the second; rows 1 and 4 have none; the
    # third class has none at all and takes no part.
    found = balance.sampling(LABELS, np.array(["a"] * 5), "class_balanced")
    np.testing.assert_allclose(found, np.array([1 / 2, 1 / 2, 1 / 2, 1, 1 / 2]) / 3)


def test_balanced_classes_share_images_with_two_findings():
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < [0.4, 0.1, 0.02]).astype(np.int8)
    found = balance.sampling(labels, np.array(["a"] * 400), "class_balanced")
    counts = np.zeros(400)
    groups = [np.flatnonzero(labels[:, c]) for c in range(3)] + [np.flatnonzero(~labels.any(1))]
    for group in rng.integers(0, 4, 40_000):
        counts[rng.choice(groups[group])] += 1
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(counts / 40_000, found, atol=6 * np.sqrt(found.max() / 40_000))


def test_balanced_sources_are_drawn_equally_often():
    source = np.array(["big"] * 4 + ["small"])
    found = balance.sampling(LABELS, source, "source_balanced")
    np.testing.assert_allclose(found, [1 / 8] * 4 + [1 / 2])
