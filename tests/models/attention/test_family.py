"""What every member of the efficient family promises: masks, gradients, cost, and its place."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import KINDS
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N = 16
X = normal(2, N, 16)
OPTIONS = {
    "local": {"block": 4, "before": 4, "after": 4},
    "local_2d": {"block": 2, "before": 2, "after": 2},
    "longformer": {"window": 4},
    "linformer": {"rank": 8},
    "performer": {"features": 16},
    "fnet": {},
    "fastformer": {},
    "strided": {},
    "fixed": {},
    "reformer": {"chunk": 4},
    "transformer_xl": {},
}
SELF_ONLY = {
    "local", "local_2d", "longformer", "fnet", "fastformer", "strided", "fixed", "reformer",
}
# Work at four times the length: 4 for linear cost, 4.8 with a logarithm, 8 for n sqrt(n).
GROWTH = {"strided": 8.5, "fixed": 8.5}
ALL_PAIRS = {"transformer_xl"}


def module_of(kind, **more):
    return KINDS[kind](heads=4, dtype=jnp.float32, **(OPTIONS[kind] | more))


def padding(n, valid):
    return (jnp.arange(n) < valid)[None, None, None]


@pytest.mark.parametrize("kind", OPTIONS)
def test_padding_changes_nothing_before_it_and_the_gradient_is_finite(draw, kind):
    module = module_of(kind)
    variables = draw(module, X, scale=0.4)
    valid = 13

    @jax.jit
    def loss(variables, x):
        y = module.apply(variables, x, mask=padding(N, valid))
        return jnp.square(y[:, :valid]).sum(), y

    (_, plain), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True, argnums=1))(variables, X)
    changed = X.copy()
    changed[:, valid:] = 1e3
    np.testing.assert_allclose(loss(variables, changed)[1][:, :valid], plain[:, :valid], atol=1e-5)
    assert np.isfinite(gradient).all()
    np.testing.assert_array_equal(gradient[:, valid:], 0)
    assert (np.abs(gradient[:, :valid]).max((0, 2)) > 0).all()


@pytest.mark.parametrize("kind", OPTIONS)
def test_dropout_acts_in_training_only_and_bfloat16_stays(draw, kind):
    module = module_of(kind, dropout=0.5)
    variables = draw(module, X, scale=0.4)

    def shape(x, **kwargs):
        return jax.eval_shape(lambda x: module_of(kind).clone(dtype=jnp.bfloat16).apply(
            variables, x, **kwargs), x)

    assert shape(jnp.asarray(X, jnp.bfloat16)).dtype == jnp.bfloat16
    text = str(jax.make_jaxpr(
        lambda x, key: module.apply(variables, x, train=True, rngs={"dropout": key})
    )(X, jax.random.key(0)))
    plain = str(jax.make_jaxpr(lambda x: module.apply(variables, x))(X))
    assert "random_bits" in text
    assert "random_bits" not in plain


@pytest.mark.parametrize("kind", OPTIONS)
def test_memory_is_used_or_refused(draw, kind):
    module = module_of(kind)
    memory = normal(2, N, 16, seed=3)
    if kind in SELF_ONLY:
        with pytest.raises(UserError, match="self-attention only"):
            jax.eval_shape(lambda x: module.init(jax.random.key(0), x, memory), X)
        return
    variables = draw(module, X, scale=0.4)
    found = jax.jit(module.apply)(variables, X, memory)
    assert np.abs(found - jax.jit(module.apply)(variables, X)).max() > 1e-3


def gradient_of(module):
    """Forward and backward pass, by the variables and the input."""

    def loss(variables, x):
        return jnp.square(module.apply(variables, x)).sum()

    return jax.value_and_grad(loss, argnums=(0, 1))


@pytest.mark.parametrize("kind", sorted(set(OPTIONS) - ALL_PAIRS))
def test_work_and_memory_grow_with_the_length_alone(kind):
    # n is large beside the widths, so that anything of n x n would show; nothing is run.
    module = module_of(kind).clone(heads=1)
    module = module.clone(chunk=32, rounds=1) if kind == "reformer" else module
    found = []
    for n in (1024, 4096):
        x = jax.ShapeDtypeStruct((1, n, 4), jnp.float32)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        both = gradient_of(module)
        found.append((oracles.flops(both, variables, x), oracles.largest_array(both, variables, x)))
        assert found[-1][1] < n * n / 4
    assert found[1][0] < GROWTH.get(kind, 5.5) * found[0][0]
    assert found[1][1] < GROWTH.get(kind, 5.5) * found[0][1]


CAUSAL = ("local", "longformer", "strided", "fixed", "performer", "reformer")


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("kind", sorted(set(OPTIONS) - ALL_PAIRS))
def test_nothing_of_all_pairs_is_ever_formed(kind, masked):
    """Forward and backward, with a mask of keys and, where there is one, in the causal form."""
    n = 512
    mask = padding(n, 400) if masked else None
    options = {"causal": True} if masked and kind in CAUSAL else {}
    options |= {"grid": (16, 32)} if kind == "local_2d" else {}
    module = module_of(kind, **options).clone(heads=1)
    module = module.clone(chunk=32, rounds=1) if kind == "reformer" else module
    x = jax.ShapeDtypeStruct((1, n, 4), jnp.float32)

    def loss(variables, x):
        return jnp.square(module.apply(variables, x, mask=mask)).sum()

    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    both = jax.value_and_grad(loss, argnums=(0, 1))
    assert oracles.largest_array(both, variables, x) < n * n


def test_the_measure_of_work_sees_full_attention():
    found = []
    for n in (1024, 4096):
        x = jax.ShapeDtypeStruct((1, n, 4), jnp.float32)
        module = KINDS["mha"](heads=1)
        variables = jax.eval_shape(module.init, jax.random.key(0), x)
        both = gradient_of(module)
        found.append(oracles.flops(both, variables, x))
        assert oracles.largest_array(both, variables, x) == n * n
    assert found[1] > 12 * found[0]


def test_every_kind_is_a_linen_module():
    assert set(OPTIONS) <= set(KINDS)
    assert all(isinstance(module_of(kind), nn.Module) for kind in OPTIONS)
