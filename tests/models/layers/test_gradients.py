"""Parts of blocks against SciPy, flax and finite differences, and what XLA makes of a barrier."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from scipy.special import ndtr

from jaxcxr.models.layers import gradients
from jaxcxr.train import setup

X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def test_gelu_is_x_times_the_normal_distribution():
    x = np.linspace(-9, 9, 2001)
    found = jax.jit(gradients.gelu)(x.astype(np.float32))
    np.testing.assert_allclose(found, x * ndtr(x), atol=2e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    wide = np.asarray(half, np.float64)
    got = np.asarray(jax.jit(gradients.gelu)(half), np.float64)
    # The tail keeps its digits in bfloat16, which erf would round to 0 below -3.
    tail = (wide > -6) & (wide < -3)
    np.testing.assert_allclose(got[tail], (wide * ndtr(wide))[tail], rtol=0.05)


def test_layer_norm_and_its_gradient_are_flax_own():
    scale, bias = X[0, 0] + 1, X[0, 1]
    layer = nn.LayerNorm(epsilon=gradients.EPSILON, use_fast_variance=False)

    def flax(x, scale, bias):
        return layer.apply({"params": {"scale": scale, "bias": bias}}, x)

    def both(function):
        out, pullback = jax.vjp(function, X, scale, bias)
        return out, *pullback(jnp.cos(out))

    for found, expected in zip(both(gradients.layer_norm), both(flax), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    check_grads(gradients.layer_norm, (X, scale, bias), 1, modes=["rev"], eps=1e-2, rtol=2e-2)


def chain(weights, x):
    for weight in weights:
        x = gradients.kept(x + jnp.tanh(x @ weight))
    return jnp.sum(x * x)


@pytest.mark.parametrize("derivative", [jax.grad, functools.partial(jax.jacfwd, argnums=0)])
def test_what_is_kept_changes_no_number(derivative, monkeypatch):
    weights, x = [X[0, :, :3] / 3] * 2, X[:, :, 0]
    found = jax.jit(derivative(chain))(weights, x)
    monkeypatch.setattr(gradients, "kept", lambda x: x)
    plain = jax.jit(derivative(lambda *args: chain(*args)))(weights, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, plain)


def test_the_step_keeps_barriers_that_others_lose():
    lowered = jax.jit(jax.grad(chain)).lower([X[0, :, :3]], X[:, :, 0])
    assert "opt-barrier" not in lowered.compile().as_text()
    assert "opt-barrier" in lowered.compile(setup._keep_barriers()).as_text()
