import jax
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention.sparse import LSH, hash_buckets
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N = 22
X = normal(2, N, 16)
KEYS = np.random.default_rng(1).random((2, 1, 1, N)) < 0.8
PAIRS = (np.random.default_rng(2).random((2, 4, N, N)) < 0.8) | np.eye(N, dtype=bool)


def run(module, variables, x=X, mask=None):
    return np.asarray(jax.jit(module.apply)(variables, x, mask=mask))


def shared_attention(params, x, seen):
    """Dense attention of queries with themselves at unit length as keys."""
    params = params | {"key": params["query"]}
    query, key, value = oracles.heads_of(params, x)
    key = key / np.linalg.norm(key, axis=-1, keepdims=True)
    scores = np.einsum("bqhd,bkhd->bhqk", query, key) / np.sqrt(query.shape[-1])
    scores = np.where(np.eye(x.shape[1], dtype=bool), -5e4, scores)
    seen = seen | ~seen.any(-1, keepdims=True)
    mixed = np.einsum("bhqk,bkhd->bqhd", oracles.softmax(scores, seen), value)
    return oracles.output(params, mixed)


def union_of_rounds(module, params, x, keys):
    """Who sees whom, by the definition: sort, cut, same bucket, own chunk or the one before."""
    n, chunk = x.shape[1], module.chunk
    query = oracles.heads_of(params | {"key": params["query"]}, x)[0].astype(np.float32)
    buckets = np.array(hash_buckets(query, module.rotations(n, query.shape[-1])))
    buckets = np.where(keys[:, None, :, 0], buckets, 1000)
    seen = np.zeros((x.shape[0], module.heads, n, n), bool)
    count = -(-n // chunk)
    for b, r, h in np.ndindex(*buckets.shape[:3]):
        row = buckets[b, r, h]
        rank = np.empty(n, int)
        rank[np.lexsort((np.arange(n), row))] = np.arange(n)
        for i in range(n):
            for j in range(n):
                near = rank[j] // chunk in (rank[i] // chunk, (rank[i] // chunk - 1) % count)
                seen[b, h, i, j] |= near and row[i] == row[j]
    return seen


@pytest.mark.parametrize(("module", "mask"), [
    (LSH(heads=4, rounds=3, chunk=4, buckets=4), None),
    (LSH(heads=4, rounds=2, chunk=5, buckets=2, causal=True), KEYS),
    (LSH(heads=4, rounds=4, chunk=4, buckets=(2, 4)), PAIRS),
], ids=["none", "keys", "pairs"])
def test_rounds_equal_the_softmax_over_their_union(draw, module, mask):
    variables = draw(module, X, scale=0.4)
    params = variables["params"]
    full = np.ones((1, 1, 1, N), bool)
    keys = full if mask is None or mask.shape[2] > 1 else mask
    seen = union_of_rounds(module, params, X, np.broadcast_to(keys, (2, 1, 1, N)))
    assert 0.1 < seen.mean() < 0.9
    seen = seen & (full if mask is None else mask)
    seen = np.tril(seen) if module.causal else seen
    defined = np.broadcast_to(seen.any(-1).all(1), X.shape[:2])
    assert defined.mean() > 0.6
    found = run(module, variables, mask=mask)
    assert np.isfinite(found).all()
    expected = shared_attention(params, X, seen)
    np.testing.assert_allclose(found[defined], expected[defined], atol=1e-5)


@pytest.mark.parametrize("chunk", [11, N, 2 * N])
def test_one_bucket_is_full_attention_with_shared_queries(draw, chunk):
    module = LSH(heads=4, rounds=2, chunk=chunk, buckets=1)
    variables = draw(module, X, scale=0.4)
    expected = shared_attention(variables["params"], X, np.ones((1, 1, N, N), bool))
    np.testing.assert_allclose(run(module, variables), expected, atol=1e-5)


def test_more_rounds_come_closer_to_full_attention(draw):
    x = normal(2, 64, 16)
    variables = draw(LSH(heads=4), x, scale=1.0)
    expected = shared_attention(variables["params"], x, np.ones((1, 1, 64, 64), bool))
    errors = []
    for rounds in (1, 8):
        module = LSH(heads=4, rounds=rounds, chunk=8)
        found = [run(module.clone(seed=seed), variables, x) for seed in range(2)]
        errors.append(np.sqrt(np.mean(np.square(np.stack(found) - expected))))
    assert errors[0] > 1.5 * errors[1]


def test_a_bucket_is_a_cone_around_a_signed_axis():
    axes = np.concatenate([np.eye(3), -np.eye(3)]).astype(np.float32)
    noise = normal(6, 3, seed=1)
    vectors = (5 * axes + 0.3 * noise)[None, :, None]
    rotation = np.eye(3, dtype=np.float32)[None]
    np.testing.assert_array_equal(hash_buckets(vectors, (rotation,))[0, 0, 0], np.arange(6))
    # Two hashes are the digits of one number.
    both = hash_buckets(vectors, (rotation, rotation[..., :1]))[0, 0, 0]
    signs = (vectors[0, :, 0, 0] < 0).astype(int)
    np.testing.assert_array_equal(both, 2 * np.arange(6) + signs)


@pytest.mark.parametrize(("options", "words"), [
    ({"buckets": (2, -2)}, "even number"),
    ({"buckets": 3}, "buckets=3: an angular"), ({"rounds": 0}, "rounds"), ({"chunk": 0}, "chunk"),
])
def test_impossible_hashes_are_named(draw, options, words):
    with pytest.raises(UserError, match=words):
        draw(LSH(heads=4, **options), X)
