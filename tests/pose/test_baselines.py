"""The two pose baselines against least squares and each other."""

import numpy as np
import pytest

from jaxcxr.pose import baselines


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 17, 3))
    x[..., 2] = rng.random((400, 17)) > 0.1
    mixing = rng.normal(size=(51, 51))
    y = (x.reshape(400, 51) @ mixing + 3).reshape(400, 17, 3)
    return x, y


def test_mean_pose_is_the_best_constant(data):
    _, y = data
    mean = baselines.mean_pose(y.astype(np.float32))
    assert mean.shape == (17, 3)
    best = ((y - mean) ** 2).sum()
    for shift in (1e-3, -1e-3):
        assert ((y - mean - shift) ** 2).sum() > best


def test_ridge_recovers_a_linear_map(data):
    x, y = data
    predict = baselines.ridge(x[:300], y[:300], alpha=1e-9)
    np.testing.assert_allclose(predict(x[300:].reshape(4, 25, 17, 3)).reshape(100, 17, 3),
                               y[300:], atol=1e-6)


def test_ridge_solves_the_augmented_least_squares(data):
    x, y = data
    y = y + np.random.default_rng(1).normal(size=y.shape)
    flat, goal = x.reshape(400, 51), y.reshape(400, 51)
    centred = np.concatenate([flat - flat.mean(0), np.sqrt(7.0) * np.eye(51)])
    wanted = np.concatenate([goal - goal.mean(0), np.zeros((51, 51))])
    coefficients = np.linalg.lstsq(centred, wanted, rcond=None)[0]
    expected = (flat - flat.mean(0)) @ coefficients + goal.mean(0)
    ours = baselines.ridge(x, y, alpha=7.0)(x)
    np.testing.assert_allclose(ours.reshape(400, 51), expected, atol=1e-8)
