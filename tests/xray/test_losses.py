"""The loss and its balance, by hand, scikit-learn and simulation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk
from sklearn.utils.class_weight import compute_class_weight

from jaxcxr.xray import losses
from tests import toys


@pytest.fixture(scope="module")
def logits():
    return np.random.default_rng(0).normal(0, 3, (40, 3)).astype(np.float32)


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(1).integers(-1, 2, (40, 3)).astype(np.int8)


ONES = np.ones(3, np.float32)


def test_cross_entropy_is_scikit_learns_over_known_labels(logits, labels):
    positive, negative = np.float32([0.9, 0.5, 0.2]), np.float32([0.1, 0.5, 0.8])
    loss = np.asarray(losses.cross_entropy(logits, labels, positive, negative))
    for c in range(3):
        known = labels[:, c] >= 0
        truth = labels[known, c]
        expected = sk.log_loss(
            truth, 1 / (1 + np.exp(-logits[known, c].astype(np.float64))), normalize=False,
            sample_weight=np.where(truth == 1, positive[c], negative[c]),
        )
        assert loss[:, c].sum() == pytest.approx(expected, rel=1e-5)


def test_unknown_labels_have_neither_loss_nor_gradient(logits, labels):
    unknown = labels == -1
    loss = losses.cross_entropy(logits, labels, ONES, ONES)
    slope = jax.grad(lambda x: losses.cross_entropy(x, labels, ONES, ONES, 2.0).sum())(logits)
    assert unknown.any()
    for value in (np.asarray(loss), np.asarray(slope)):
        assert (value[unknown] == 0).all()
        assert (value[~unknown] != 0).all()


def total(logits, labels, gamma):
    ones = ONES[: labels.shape[1]]
    return losses.cross_entropy(logits, labels, ones, ones, gamma).sum()


@pytest.mark.parametrize("value", [-1e4, -90.0, 90.0, 1e4])
def test_extreme_logits_give_finite_losses_and_gradients(value):
    logits = np.full((1, 2), value, np.float32)
    labels = np.array([[1, 0]], np.int8)
    for gamma in (0.0, 2.0):
        loss, slope = jax.value_and_grad(total)(logits, labels, gamma)
        assert np.isfinite(loss)
        assert np.isfinite(slope).all()


@pytest.mark.parametrize("gamma", [0.5, 2.0])
def test_focal_loss_is_its_formula(logits, labels, gamma):
    p = 1 / (1 + np.exp(-logits.astype(np.float64)))
    p_true = np.where(labels == 1, p, 1 - p)
    expected = np.where(labels >= 0, -((1 - p_true) ** gamma) * np.log(p_true), 0.0)
    loss = losses.cross_entropy(logits, labels, ONES, ONES, gamma)
    np.testing.assert_allclose(loss, expected, rtol=2e-4, atol=1e-6)


def test_focal_loss_without_focus_is_cross_entropy(logits, labels):
    sums = {}
    for name, gamma in (("bce", 2.0), ("focal", 0.0)):
        task = toys.make_xray_task(toys.xray_config(
            loss__cxr=name, loss__focal_gamma=gamma, loss__class_weights="none"
        ))
        batch = {"labels": labels, "valid": np.ones(40, bool)}
        sums[name] = task.loss_sums(jnp.asarray(logits), batch)["cross_entropy"]
    assert sums["bce"] == sums["focal"] > 0


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
    found = losses.class_weights(LABELS, kind, beta=0.5)
    np.testing.assert_allclose(found, [positive, negative], rtol=1e-6)
    assert found[0].dtype == found[1].dtype == np.float32


@pytest.mark.parametrize("kind", ["thesis", "chexnet", "effective_number"])
def test_unknown_labels_never_count(kind):
    labels = np.random.default_rng(0).integers(-1, 2, (300, 4)).astype(np.int8)
    for c in range(4):
        column = labels[:, c : c + 1]
        found = losses.class_weights(column, kind, 0.99)
        expected = losses.class_weights(column[column[:, 0] >= 0], kind, 0.99)
        np.testing.assert_array_equal(found, expected)


def test_effective_numbers_lie_between_no_balance_and_chexnets_ratio():
    labels = (np.random.default_rng(0).random((2000, 3)) < [0.5, 0.1, 0.01]).astype(np.int8)
    ratio, _ = losses.class_weights(labels, "chexnet")
    np.testing.assert_allclose(losses.class_weights(labels, "effective_number", 0.0)[0], 0.5)
    near, _ = losses.class_weights(labels, "effective_number", 1 - 1e-9)
    np.testing.assert_allclose(near, ratio, rtol=1e-4)
    between, _ = losses.class_weights(labels, "effective_number", 0.99)
    assert (between[1:] > 0.5).all()
    assert (between[1:] < ratio[1:]).all()


@pytest.mark.parametrize("kind", ["thesis", "chexnet"])
def test_class_weights_have_the_ratio_of_scikit_learns_balanced_ones(kind):
    labels = LABELS[:, 0]
    negative, positive = compute_class_weight("balanced", classes=np.array([0, 1]), y=labels)
    ours = [weight[0] for weight in losses.class_weights(LABELS[:, :1], kind)]
    assert ours[0] / ours[1] == pytest.approx(positive / negative)


@pytest.mark.parametrize("kind", ["thesis", "chexnet", "effective_number"])
def test_a_class_that_is_always_there_gets_no_positive_weight(kind):
    positive, negative = losses.class_weights(np.array([[1], [1], [-1]], np.int8), kind)
    assert (positive[0], negative[0]) == (0, 1)


def test_plain_sampling_is_left_to_the_pipeline():
    assert losses.sampling(LABELS, np.array(["a"] * 5), "plain") is None


def test_balanced_classes_are_drawn_equally_often():
    # Positives: rows 0 and 2 of the first class, row 3 of the second; rows 1 and 4 have none; the
    # third class has none at all and takes no part.
    found = losses.sampling(LABELS, np.array(["a"] * 5), "class_balanced")
    np.testing.assert_allclose(found, np.array([1 / 2, 1 / 2, 1 / 2, 1, 1 / 2]) / 3)


def test_balanced_classes_share_images_with_two_findings():
    rng = np.random.default_rng(0)
    labels = (rng.random((400, 3)) < [0.4, 0.1, 0.02]).astype(np.int8)
    found = losses.sampling(labels, np.array(["a"] * 400), "class_balanced")
    counts = np.zeros(400)
    groups = [np.flatnonzero(labels[:, c]) for c in range(3)] + [np.flatnonzero(~labels.any(1))]
    for group in rng.integers(0, 4, 40_000):
        counts[rng.choice(groups[group])] += 1
    assert found.sum() == pytest.approx(1)
    np.testing.assert_allclose(counts / 40_000, found, atol=6 * np.sqrt(found.max() / 40_000))


def test_balanced_sources_are_drawn_equally_often():
    source = np.array(["big"] * 4 + ["small"])
    found = losses.sampling(LABELS, source, "source_balanced")
    np.testing.assert_allclose(found, [1 / 8] * 4 + [1 / 2])
