"""Every alignment function against a loop over batch, heads, queries and keys."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import alignments

B, N, M, H, D = 2, 3, 5, 2, 4
RNG = np.random.default_rng(0)
Q, K = RNG.normal(size=(B, N, H, D)), RNG.normal(size=(B, M, H, D))
VALID = np.array([[True, False, True, True, True], [True, True, True, False, True]])


def drawn(name):
    shapes = alignments.parameters(name, H, D, max_keys=7)
    rng = np.random.default_rng(1)
    return {key: rng.normal(scale=0.7, size=shape) for key, (_, shape) in shapes.items()}


def area(k, valid, j):
    members = np.array([k[i] for i in range(max(j - 2, 0), j + 1) if valid[i]])
    if not len(members):
        return np.zeros(D), np.full(D, 1e-3)
    return members.mean(0), np.sqrt(members.var(0) + 1e-6)


def expected(name, p, q, k, j, keys, valid):
    elu = lambda x: np.where(x > 0, x, np.exp(x) - 1)  # noqa: E731
    match name:
        case "similarity":
            cosine = q @ k / np.linalg.norm(q) / np.linalg.norm(k)
            return min(np.exp(p["log_scale"]), 100.0) * cosine
        case "dot":
            return q @ k
        case "scaled_dot":
            return q @ k / np.sqrt(D)
        case "general":
            return q @ p["matrix"] @ k
        case "biased_general":
            return k @ (p["matrix"] @ q + p["bias"])
        case "activated_general":
            return np.tanh(q @ p["matrix"] @ k + p["bias"])
        case "kernel":
            return (elu(q) + 1) @ (elu(k) + 1)
        case "additive":
            both = np.concatenate([q, k])
            matrix = np.concatenate([p["first"], p["second"]])
            return p["readout"] @ np.tanh(both @ matrix + p["bias"])
        case "deep":
            one = np.tanh(q @ p["first"] + k @ p["second"] + p["bias"])
            two = np.tanh(one @ p["hidden"] + p["hidden_bias"])
            return p["readout"] @ two + p["constant"]
        case "location":
            return (p["matrix"] @ q)[j]
        case "feature":
            mean, deviation = area(keys, valid, j)
            inside = mean @ p["first"] + deviation @ p["second"] + p["bias"]
            return p["readout"] @ np.tanh(inside)


@pytest.mark.parametrize("name", alignments.NAMES)
def test_equals_a_loop(name):
    params = drawn(name)
    single = {k: jnp.array(v, jnp.float32) for k, v in params.items()}
    q, k = jnp.array(Q, jnp.float32), jnp.array(K, jnp.float32)
    found = alignments.score(name, single, q, k, jnp.array(VALID)[:, None])
    assert found.shape == (B, H, N, M)
    for b, h, i, j in np.ndindex(B, H, N, M):
        own = {k: v[h] for k, v in params.items()}
        loop = expected(name, own, Q[b, i, h], K[b, j, h], j, K[b, :, h], VALID[b])
        np.testing.assert_allclose(found[b, h, i, j], loop, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", alignments.NAMES)
def test_gradients_are_finite_and_low_precision_gives_float32(name):
    params = {k: jnp.array(v, jnp.float32) for k, v in drawn(name).items()}
    q, k = jnp.zeros((1, 3, H, D)), jnp.zeros((1, 5, H, D))
    gradient = jax.grad(lambda *a: alignments.score(name, *a).sum(), (0, 1, 2))(params, q, k)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))
    low = alignments.score(name, params, q.astype(jnp.bfloat16), k.astype(jnp.bfloat16))
    assert low.dtype == jnp.float32


@pytest.mark.parametrize("name", ["general", "biased_general"])
def test_general_alignment_begins_as_scaled_dot(name):
    key = jax.random.key(0)
    params = {
        k: init(key, shape, jnp.float32)
        for k, (init, shape) in alignments.parameters(name, H, D).items()
    }
    q, k = jnp.array(Q, jnp.float32), jnp.array(K, jnp.float32)
    plain = alignments.score("scaled_dot", {}, q, k)
    np.testing.assert_allclose(alignments.score(name, params, q, k), plain, atol=1e-6)


def test_the_sharpness_of_similarity_is_bounded():
    q = jnp.ones((1, 1, 1, 2))
    found = alignments.score("similarity", {"log_scale": jnp.array([9.0])}, q, q)
    np.testing.assert_allclose(found, 100, rtol=1e-5)


def test_an_area_never_looks_ahead():
    k = jnp.array(K, jnp.float32)
    changed = k.at[:, 3:].add(1.0)
    for before, after in zip(alignments.areas(k), alignments.areas(changed), strict=True):
        np.testing.assert_array_equal(before[:, :3], after[:, :3])


def test_errors_say_what_to_do():
    with pytest.raises(UserError, match=r"location\(MAX_KEYS\)"):
        alignments.parameters("location", H, D)
    with pytest.raises(UserError, match="at most 3 keys and got 5"):
        alignments.score("location", {"matrix": jnp.zeros((H, 3, D))}, jnp.array(Q), jnp.array(K))
    with pytest.raises(UserError, match="scaled_dot"):
        alignments.parameters("doot", H, D)
