"""The loss of findings against scikit-learn and hand computation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn import metrics as sk

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
