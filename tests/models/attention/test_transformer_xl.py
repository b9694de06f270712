import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models import create
from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.attention.transformer_xl import TransformerXL, in_segments, relative_shift
from jaxcxr.models.layers import sinusoidal
from jaxcxr.models.sequence.transformer import EncoderBlock
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N, PAST = 7, 4
X, MEMORY = normal(2, N, 16), normal(2, PAST, 16, seed=1)
KEYS = np.random.default_rng(1).random((2, 1, 1, PAST + N)) < 0.8
KEYS[..., PAST] = True


def by_loops(params, x, memory, mask, causal, clamp=0):
    """The relative score of each pair, distance by distance."""
    past = np.concatenate([memory, x], 1)
    _, key, value = oracles.heads_of(params, past)
    query = oracles.heads_of(params, x)[0]
    u, v = params["content_bias"], params["position_bias"]
    kernel = np.float64(params["relative"]["kernel"])
    m = memory.shape[1]
    scores = np.full((x.shape[0], query.shape[2], x.shape[1], past.shape[1]), -np.inf)
    for i in range(x.shape[1]):
        for j in range(past.shape[1]):
            gap = i + m - j
            if causal and gap < 0:
                continue
            gap = np.clip(gap, -clamp, clamp) if clamp else gap
            code = np.einsum("d,dhe->he", sinusoidal(np.array(gap), x.shape[2]), kernel)
            scores[:, :, i, j] = ((query[:, i] + u) * key[:, j]).sum(-1)
            scores[:, :, i, j] += ((query[:, i] + v) * code).sum(-1)
    weights = oracles.softmax(scores / np.sqrt(query.shape[-1]), mask)
    return oracles.output(params, np.einsum("bhqk,bkhd->bqhd", weights, value))


@pytest.mark.parametrize(("options", "memory", "masked"), [
    ({}, MEMORY[:, :0], False), ({"causal": True}, MEMORY, True), ({"clamp": 3}, MEMORY, False),
])
def test_equals_the_formula_pair_by_pair(draw, options, memory, masked):
    module = TransformerXL(heads=4, **options)
    variables = draw(module, X, scale=0.4)
    keys = KEYS if masked else np.ones((1, 1, 1, memory.shape[1] + N), bool)
    expected = by_loops(variables["params"], X, memory, keys, module.causal, module.clamp)
    given = memory if memory.shape[1] else None
    found = jax.jit(module.apply)(variables, X, given, mask=keys if masked else None)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (3, 5), (1, 3), (1, 1)])
def test_relative_shift_picks_the_distance_of_each_pair(queries, keys):
    distances = jnp.arange(keys - 1, -queries, -1)
    found = relative_shift(jnp.broadcast_to(distances, (queries, len(distances))), keys)
    expected = (np.arange(queries) + keys - queries)[:, None] - np.arange(keys)
    np.testing.assert_array_equal(found, expected)


def test_two_segments_with_memory_are_one_long_segment(draw):
    module = TransformerXL(heads=4, causal=True)
    variables = draw(module, X, scale=0.4)
    whole = module.apply(variables, np.concatenate([MEMORY, X], 1))
    first = module.apply(variables, MEMORY)
    second = module.apply(variables, X, MEMORY)
    np.testing.assert_allclose(np.concatenate([first, second], 1), whole, atol=3e-6)


class Stack(nn.Module):
    """Blocks as those of the models."""

    depth: int
    remembered: int

    @nn.compact
    def __call__(self, x, mask=None):
        seen = None if mask is None else mask[:, None, None]
        for _ in range(self.depth):
            make = functools.partial(TransformerXL, heads=4, causal=True,
                                     remembered=self.remembered)
            x = EncoderBlock(make)(x, seen)
        return x


@pytest.mark.parametrize(("depth", "segment", "masked"), [(1, 4, False), (2, 3, True)])
def test_segments_that_remember_all_are_one_long_segment(draw, depth, segment, masked):
    model, x = Stack(depth, 20), normal(2, 10, 16)
    variables = draw(model, x, scale=0.4)
    valid = np.random.default_rng(0).random((2, 10)) < 0.7 if masked else None
    if masked:
        valid[:, 0] = True
    whole = model.apply(variables, x, valid)
    found, memory = in_segments(model.apply, variables, x, segment, mask=valid)
    np.testing.assert_allclose(found, whole, atol=1e-5)
    kept = memory["memory"]["EncoderBlock_0"]["attention"]
    assert kept["inputs"].shape == (2, 10, 16)
    # Going on from a memory is going on from where it was left.
    first, memory = in_segments(model.apply, variables, x[:, :6], segment,
                                mask=valid if valid is None else valid[:, :6])
    rest, _ = in_segments(model.apply, variables, x[:, 6:], segment, memory=memory,
                          mask=valid if valid is None else valid[:, 6:])
    np.testing.assert_allclose(np.concatenate([first, rest], 1), whole, atol=1e-5)


def test_a_memory_reaches_back_as_far_as_it_is_long(draw):
    model, x = Stack(1, 3), normal(1, 12, 16)
    variables = draw(model, x, scale=0.4)

    @jax.jit
    def last(x):
        return in_segments(model.apply, variables, x, 4)[0][:, 8:]

    changed = x.copy()
    changed[:, :5] *= -1
    np.testing.assert_array_equal(last(changed), last(x))
    changed[:, 5] *= -1
    assert np.abs(last(changed) - last(x)).max() > 1e-4


def test_a_pose_model_remembers(draw):
    kind = "transformer_xl(causal=True,remembered=9)"
    model = create("pose_temporal", dim=16, depth=2, heads=2, drop_path=0.0, attention=kind)
    x = normal(2, 18, 17, 3)
    variables = draw(model, x)
    run = jax.jit(model.apply, static_argnames="mutable")

    def apply(*args, mutable, **options):
        return run(*args, mutable=tuple(mutable), **options)

    mask = np.ones((2, 18), bool)
    found, memory = in_segments(apply, variables, x, 9, mask=mask)
    assert found.shape == x.shape
    assert set(memory["memory"]["backbone"]) == {"blocks_0", "blocks_1"}
    alone = apply(variables, x[:, 9:], mask=mask[:, 9:], mutable=["memory"])[0]
    assert np.abs(found[:, 9:] - alone).max() > 1e-5
    first = apply(variables, x[:, :9], mask=mask[:, :9], mutable=["memory"])[0]
    np.testing.assert_allclose(found[:, :9], first, atol=1e-6)
    with pytest.raises(UserError, match="at least 1"):
        in_segments(apply, variables, x, 0)


def test_no_gradient_reaches_the_memory(draw):
    module = TransformerXL(heads=4)
    variables = draw(module, X, scale=0.4)
    gradients = jax.jit(jax.grad(
        lambda x, memory: jnp.square(module.apply(variables, x, memory)).sum(), argnums=(0, 1)
    ))(X, MEMORY)
    assert np.abs(gradients[0]).max() > 1e-2
    np.testing.assert_array_equal(gradients[1], 0)


def test_without_relative_terms_it_is_plain_attention(draw):
    module = TransformerXL(heads=4)
    params = draw(module, X, scale=0.4)["params"]
    silent = ("relative", "content_bias", "position_bias")
    off = params | {name: jax.tree.map(np.zeros_like, params[name]) for name in silent}
    expected = MultiHeadAttention(heads=4).apply({"params": params}, X)
    np.testing.assert_allclose(module.apply({"params": off}, X), expected, atol=3e-6)


def test_an_odd_width_is_named(draw):
    with pytest.raises(UserError, match="even width"):
        draw(TransformerXL(heads=1), X[..., :15])
