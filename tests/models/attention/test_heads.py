import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.models.attention import MultiHeadAttention


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, MEMORY = normal(2, 6, 16), normal(2, 9, 16, seed=1)
MASK = np.random.default_rng(2).random((2, 1, 6, 9)) < 0.6


@pytest.fixture
def pair(draw):
    """Our attention, Flax's, and weights that serve both."""
    ours, theirs = MultiHeadAttention(heads=4), nn.MultiHeadDotProductAttention(num_heads=4)
    return ours, theirs, draw(ours, X, scale=0.4)


@pytest.mark.parametrize("mask", [None, MASK, MASK[:1], MASK[:, :, :1]])
def test_equals_flax(pair, mask):
    ours, theirs, variables = pair
    expected = theirs.apply(variables, X, MEMORY, mask=mask)
    np.testing.assert_allclose(ours.apply(variables, X, MEMORY, mask=mask), expected, atol=1e-6)


def test_self_attention_and_its_gradient_equal_flax(pair):
    ours, theirs, variables = pair

    def gradient(module):
        return jax.jit(jax.grad(lambda v: jnp.square(module.apply(v, X)).mean()))(variables)

    np.testing.assert_allclose(ours.apply(variables, X), theirs.apply(variables, X), atol=1e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), gradient(ours), gradient(theirs)
    )


def test_a_query_without_keys_gets_the_mean_and_no_nan(pair):
    ours, _, variables = pair
    blind = np.zeros((1, 1, 6, 9), bool)
    values = variables["params"]["value"]
    mean = np.einsum("bkd,dhe->bkhe", MEMORY, values["kernel"]).mean(1) + values["bias"]
    out = variables["params"]["out"]
    expected = np.einsum("bhe,hed->bd", mean, out["kernel"]) + out["bias"]
    found = ours.apply(variables, X, MEMORY, mask=blind)
    np.testing.assert_allclose(found, np.repeat(expected[:, None], 6, 1), atol=1e-5)


def test_dropout_acts_on_single_weights_and_keeps_the_mean(pair):
    _, _, variables = pair
    dropped = MultiHeadAttention(heads=4, dropout=0.5)
    plain = dropped.apply(variables, X)

    many = np.repeat(X[:1], 4000, axis=0)
    samples = jax.jit(dropped.apply, static_argnames="train")(
        variables, many, train=True, rngs={"dropout": jax.random.key(0)}
    )
    assert np.abs(samples[0] - plain[0]).max() > 0.05
    assert np.abs(samples[0] - samples[1]).max() > 0.05
    error = np.std(samples, axis=0) / np.sqrt(4000)
    assert (np.abs(samples.mean(0) - plain[0]) < 5 * error + 1e-5).all()


def test_distance_is_accepted_and_changes_nothing(pair):
    ours, _, variables = pair
    distance = np.abs(np.arange(6)[:, None] - np.arange(6))
    np.testing.assert_array_equal(
        ours.apply(variables, X, distance=distance), ours.apply(variables, X)
    )
