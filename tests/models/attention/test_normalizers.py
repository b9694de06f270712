import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import optimize

from jaxcxr.models.attention import normalizers as norm


def scores(*shape, seed=0, scale=2.0):
    return np.random.default_rng(seed).normal(scale=scale, size=shape)


def by_root(z, alpha):
    """Entmax of one row, its threshold found by SciPy."""
    def power(tau):
        return np.maximum((alpha - 1) * z - tau, 0.0) ** (1 / (alpha - 1))

    top = (alpha - 1) * z.max()
    tau = optimize.brentq(lambda t: power(t).sum() - 1, top - 1, top, xtol=1e-15)
    return power(tau)


def test_the_published_example():
    z = jnp.array([-2.0, 0.0, 0.5])
    np.testing.assert_allclose(norm.sparsemax(z), [0, 0.25, 0.75], atol=1e-6)
    np.testing.assert_allclose(norm.entmax15(z), [0, 0.3260, 0.6740], atol=5e-5)


@pytest.mark.parametrize("alpha", [1.01, 1.2, 1.5, 1.9, 2.0])
def test_entmax_equals_a_root_finder(x64, alpha):
    z = scores(3, 7)
    expected = [by_root(row, alpha) for row in z]
    np.testing.assert_allclose(norm.entmax(jnp.array(z), alpha), expected, atol=1e-9)


def test_float32_is_as_exact_as_it_can_be():
    z = scores(4, 3, 50, seed=1)
    alpha = np.array([1.0001, 1.3, 2.0])[:, None]
    found = norm.entmax(jnp.array(z, jnp.float32), jnp.array(alpha, jnp.float32))
    expected = [[by_root(z[b, h], alpha[h, 0]) for h in range(3)] for b in range(4)]
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, expected, atol=2e-6)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-6)


def test_two_keys_have_a_closed_form(x64):
    gap = jnp.linspace(-1.5, 1.5, 13)
    found = norm.sparsemax(jnp.stack([gap, jnp.zeros_like(gap)], -1))[:, 0]
    np.testing.assert_allclose(found, np.clip((gap + 1) / 2, 0, 1), atol=1e-12)


def test_entmax_tends_to_softmax(x64):
    z = jnp.array(scores(5, 9))
    np.testing.assert_allclose(norm.entmax(z, 1.0), norm.softmax(z), atol=2e-5)


def differences(function, x, step=1e-6):
    x = np.asarray(x, np.float64)
    out = np.zeros_like(x)
    for i in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[i] += step
        down[i] -= step
        out[i] = (function(jnp.array(up)) - function(jnp.array(down))) / (2 * step)
    return out


def test_entmax_derivatives_are_those_of_finite_differences(x64):
    z, weight = scores(3, 6), jnp.array(scores(3, 6, seed=3))
    alpha = np.array([[1.1], [1.5], [1.8]])

    def value(z, alpha):
        return (norm.entmax(z, alpha) * weight).sum()

    to_z, to_alpha = jax.jit(jax.grad(value, (0, 1)))(jnp.array(z), jnp.array(alpha))
    value = jax.jit(value)
    np.testing.assert_allclose(to_z, differences(lambda x: value(x, alpha), z), atol=1e-7)
    np.testing.assert_allclose(to_alpha, differences(lambda a: value(z, a), alpha), atol=1e-7)


def test_the_derivative_by_alpha_is_stable_near_softmax():
    z, weight = scores(1, 6), scores(1, 6, seed=3)

    def slope(alpha, dtype):
        def value(a):
            return (norm.entmax(jnp.array(z, dtype), a) * jnp.array(weight, dtype)).sum()

        return float(jax.grad(value)(jnp.array(alpha, dtype)))

    single = [slope(1 + order, jnp.float32) for order in (1e-2, 1e-3, 1e-4)]
    with jax.enable_x64(True):
        double = [slope(1 + order, jnp.float64) for order in (1e-2, 1e-3, 1e-4)]
    np.testing.assert_allclose(single, double, rtol=2e-3)
    # As alpha -> 1: p (E - L^2)/2 - p (L - M) M with L = log p, M = sum p L, E = sum p L^2.
    p = np.exp(z - z.max())
    p /= p.sum()
    log = np.log(p)
    mean, square = (p * log).sum(), (p * log**2).sum()
    bracket = 0.5 * (square - log**2) + log * mean - mean * log
    np.testing.assert_allclose(double[2], (weight * p * bracket).sum(), rtol=2e-3)


@pytest.mark.parametrize("name", ["softmax", "sparsemax", "entmax15", "entmax"])
def test_hidden_keys_weigh_nothing_and_change_nothing(name):
    function = norm.SIMPLEX.get(name, lambda z: norm.entmax(z, 1.3))
    z = jnp.array(scores(2, 5), jnp.float32)
    hidden = jnp.pad(z, ((0, 0), (0, 3)), constant_values=norm.HIDDEN)

    def loss(z):
        return (function(z) * jnp.arange(z.shape[-1], dtype=z.dtype)).sum()

    found = function(hidden)
    np.testing.assert_allclose(found[:, :5], function(z), atol=1e-6)
    assert (found[:, 5:] == 0).all()
    gradient = jax.grad(loss)(hidden)
    np.testing.assert_allclose(gradient[:, :5], jax.grad(loss)(z), atol=1e-5)
    assert (gradient[:, 5:] == 0).all()
    blind = function(jnp.full((1, 4), norm.HIDDEN))
    np.testing.assert_allclose(blind, 0.25, atol=1e-6)


def test_sigmoid_of_equal_scores_weighs_about_as_softmax():
    seen = jnp.array([1.0] * 6 + [0.0] * 2)
    found = norm.sigmoid(jnp.zeros((3, 8)), seen)
    np.testing.assert_allclose(found[:, :6], 1 / 7, rtol=1e-6)  # sigmoid(-ln 6)
    assert (found[:, 6:] == 0).all()
    assert np.isfinite(norm.sigmoid(jnp.zeros((1, 2)), jnp.zeros(2))).all()


def test_quasi_attention_adds_subtracts_and_nullifies():
    z = jnp.array([50.0, -50.0, 0.0, 50.0])
    far = jnp.array([0.0, 0.0, 0.0, -100.0])
    found = norm.quasi(z, far, jnp.ones(4))
    np.testing.assert_allclose(found, [1, -1, 0, 0], atol=1e-6)
    np.testing.assert_allclose(norm.quasi(z, far, jnp.array([0.0, 1, 1, 1]))[0], 0)


def test_manhattan_equals_a_loop():
    q, k = scores(2, 3, 2, 4), scores(2, 5, 2, 4, seed=1)
    found = norm.manhattan(jnp.array(q, jnp.float32), jnp.array(k, jnp.float32))
    for b, h, i, j in np.ndindex(2, 2, 3, 5):
        expected = -np.abs(q[b, i, h] - k[b, j, h]).sum() / 2
        np.testing.assert_allclose(found[b, h, i, j], expected, rtol=1e-5)
