import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention, efficient
from jaxcxr.models.attention.efficient import Fastformer, FNet, Linformer, Performer
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N = 12
X = normal(2, N, 16)
KEYS = np.random.default_rng(1).random((2, 1, 1, N)) < 0.7


def run(module, variables, mask=None):
    return np.asarray(jax.jit(module.apply)(variables, X, mask=mask))


def with_identity(params, heads):
    eye = np.repeat(np.eye(N, dtype=np.float32)[None], heads, 0)
    return {"params": params | {k: eye for k in params if k.endswith("_projection")}}


@pytest.mark.parametrize(("share", "heads"), [("none", 4), ("heads", 1), ("kv", 1)])
def test_linformer_of_full_rank_is_full_attention(draw, share, heads):
    module = Linformer(heads=4, rank=N, share=share)
    params = draw(module, X, scale=0.4)["params"]
    assert ("value_projection" in params) == (share != "kv")
    expected = run(MultiHeadAttention(heads=4), {"params": params})
    found = run(module, with_identity(params, heads))
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_linformer_equals_its_formula(draw):
    module = Linformer(heads=4, rank=5, share="none", max_length=20)
    variables = draw(module, X, scale=0.4)
    params = variables["params"]
    e, f = (np.float64(params[name])[:, :, :N] for name in ("key_projection", "value_projection"))
    assert params["key_projection"].shape == (4, 5, 20)
    query, key, value = oracles.heads_of(params, X)
    seen = KEYS[:, 0, 0, :, None, None]
    key, value = (np.einsum("hrn,bnhd->brhd", m, t * seen) for m, t in ((e, key), (f, value)))
    expected = oracles.output(params, oracles.attend(query, key, value, True))
    np.testing.assert_allclose(run(module, variables, KEYS), expected, atol=1e-5)


def test_linformer_names_a_length_it_was_not_made_for(draw):
    variables = draw(Linformer(heads=4, rank=5), X)
    with pytest.raises(UserError, match="max_length"):
        Linformer(heads=4, rank=5).apply(variables, X[:, :7])


def test_orthogonal_features_are_orthogonal_and_gaussian():
    many = jax.vmap(lambda k: efficient.orthogonal_features(k, 12, 8))(
        jax.random.split(jax.random.key(0), 2000)
    )
    gram = np.einsum("sfd,sgd->sfg", many, many)
    off = gram[:, :8, :8][:, ~np.eye(8, dtype=bool)]
    assert np.abs(off).max() < 1e-4
    assert np.abs(gram[:, 0, 8]).max() > 0.1  # another block is independent
    assert np.abs(np.mean(many, 0)).max() < 5 / np.sqrt(2000)
    np.testing.assert_allclose(np.var(many, 0), 1, atol=5 * np.sqrt(2 / 2000))
    # Squared lengths are chi-square with 8 degrees of freedom: mean 8, variance 16.
    squares = np.einsum("sff->sf", gram)
    np.testing.assert_allclose(squares.mean(), 8, atol=0.15)
    np.testing.assert_allclose(squares.var(), 16, rtol=0.1)


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kernel", ["softmax", "relu"])
def test_performer_equals_the_explicit_kernel_matrix(draw, kernel, causal):
    module = Performer(heads=4, features=24, kernel=kernel, causal=causal)
    variables = draw(module, X, scale=0.3)
    query, key, value = oracles.heads_of(variables["params"], X)
    w = np.float64(efficient.orthogonal_features(jax.random.key(0), 24, 4))

    seen = KEYS[:, 0, 0, :, None, None]

    def phi(t, axes, seen):
        t = t / 4**0.25
        projected = np.einsum("bnhd,fd->bnhf", t, w)
        if kernel == "relu":
            return np.maximum(projected, 0) + 1e-3
        exponent = projected - (t**2).sum(-1, keepdims=True) / 2
        top = np.where(seen, exponent, -np.inf).max(axes, keepdims=True)
        top = 0 if causal and axes != -1 else top
        return np.exp(exponent - top) + 1e-6

    matrix = np.einsum("bqhf,bkhf->bhqk", phi(query, -1, True), phi(key, (1, 3), seen)) * KEYS
    matrix = np.tril(matrix) if causal else matrix
    total = matrix.sum(-1, keepdims=True)
    matrix /= np.where(total > 0, total, 1)
    mixed = np.einsum("bhqk,bkhd->bqhd", matrix, value)
    expected = oracles.output(variables["params"], mixed)
    np.testing.assert_allclose(run(module, variables, KEYS), expected, atol=2e-5)


@pytest.mark.parametrize("chunk", [1, 5, 12, 64])
def test_prefix_sums_over_chunks_equal_the_masked_matrix(chunk):
    rng = np.random.default_rng(0)
    query, key = (rng.random((2, N, 3, 7)).astype(np.float32) for _ in range(2))
    value = rng.normal(size=(2, N, 3, 5)).astype(np.float32)

    def by_chunks(query, key, value):
        return efficient.causal_linear_attention(query, key, value, chunk)

    def by_matrix(query, key, value):
        matrix = jnp.tril(jnp.einsum("bqhf,bkhf->bhqk", query, key))
        return jnp.einsum("bhqk,bkhd->bqhd", matrix / matrix.sum(-1, keepdims=True), value)

    found, expected = (
        jax.jit(jax.value_and_grad(lambda *t, f=f: jnp.sin(f(*t)).sum(), argnums=(0, 1, 2)))(
            query, key, value)
        for f in (by_chunks, by_matrix)
    )
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_a_causal_performer_hears_nothing_of_what_comes_later(draw):
    module = Performer(heads=4, features=16, causal=True)
    variables = draw(module, X, scale=0.4)
    changed = X.copy()
    changed[:, 7:] *= 20
    found, other = (jax.jit(module.apply)(variables, x) for x in (X, changed))
    np.testing.assert_array_equal(found[:, :7], other[:, :7])
    assert np.abs(found[:, 7:] - other[:, 7:]).max() > 1e-3
    rows = np.tril(np.ones((N, N), bool)) & KEYS
    np.testing.assert_array_equal(run(module, variables, rows), run(module, variables, KEYS))


def test_performer_approaches_softmax_as_the_root_of_the_features():
    rng = np.random.default_rng(0)
    query, key = (0.25 * rng.normal(size=(1, 32, 1, 16)).astype(np.float32) for _ in range(2))
    value = rng.normal(size=(1, 32, 1, 16)).astype(np.float32)
    exact = oracles.attend(query, key, value, True)

    def error(count, rng):
        w = efficient.orthogonal_features(rng, count, 16)
        q = efficient.softmax_features(query, w, (-1,))
        k = efficient.softmax_features(key, w, (1, -1))
        return efficient.linear_attention(q, k, value) - exact

    errors = []
    for count in (32, 512):
        several = jax.jit(jax.vmap(lambda k, c=count: error(c, k)))(
            jax.random.split(jax.random.key(1), 16)
        )
        errors.append(float(np.sqrt(np.mean(np.square(several)))))
    # Sixteen times the features: a quarter of the error.
    assert 3 < errors[0] / errors[1] < 5.5
    assert errors[1] < 0.02


def test_performer_redraws_in_training_only(draw):
    module = Performer(heads=4, features=8, redraw=True)
    variables = draw(module, X, scale=0.4)

    def once(seed, train):
        return module.apply(variables, X, train=train, rngs={"dropout": jax.random.key(seed)})

    assert np.abs(once(0, True) - once(1, True)).max() > 1e-3
    np.testing.assert_array_equal(once(0, False), once(1, False))


def test_fnet_is_the_real_fourier_transform():
    plain = FNet(heads=1, norm="backward").apply({}, X, mask=KEYS)
    kept = np.where(KEYS[:, 0, 0, :, None], X, 0)
    angles = [np.exp(-2j * np.pi * np.outer(np.arange(n), np.arange(n)) / n) for n in (N, 16)]
    expected = np.einsum("kn,bnd,dl->bkl", angles[0], kept, angles[1]).real
    np.testing.assert_allclose(plain, expected, atol=1e-4)
    scaled = FNet(heads=1).apply({}, X, mask=KEYS)
    np.testing.assert_allclose(scaled, expected / np.sqrt(N * 16), atol=1e-5)


def test_fnet_twice_is_the_input_and_its_reversal():
    twice = FNet(heads=1).apply({}, FNet(heads=1).apply({}, X))
    back = [np.mod(-np.arange(n), n) for n in (N, 16)]
    expected = (X + X[:, back[0]][:, :, back[1]]) / 2
    np.testing.assert_allclose(twice, expected, atol=1e-5)


def fastformer(params, x, seen, value):
    query, key, _ = oracles.heads_of(params, x)

    def pool(name, t):
        scores = (t * params[name]).sum(-1) / 2
        weights = oracles.softmax(scores.swapaxes(1, 2), seen)
        return np.einsum("bhn,bnhd->bhd", weights, t)[:, None]

    pooled = pool("key_score", pool("query_score", query) * key)
    return oracles.output(params, pooled * value) + query.reshape(x.shape)


@pytest.mark.parametrize("share", [False, True])
def test_fastformer_equals_its_formula(draw, share):
    module = Fastformer(heads=4, share_value=share)
    variables = draw(module, X, scale=0.3)
    params = variables["params"]
    assert ("value" in params) != share
    everything = params | {"value": params["query" if share else "value"]}
    query, _, value = oracles.heads_of(everything, X)
    expected = fastformer(everything, X, KEYS[:, 0], query if share else value)
    np.testing.assert_allclose(run(module, variables, KEYS), expected, atol=1e-5)


def test_fastformer_in_closed_form(draw):
    module = Fastformer(heads=4)
    params = draw(module, X, scale=0.3)["params"]
    query, key, value = oracles.heads_of(params, X[:, :1])
    one = oracles.output(params, query * key * value) + query.reshape(2, 1, 16)
    np.testing.assert_allclose(module.apply({"params": params}, X[:, :1]), one, atol=1e-5)
    # Constant scores: the weighted means are plain means.
    flat = params | {name: np.zeros((4, 4), np.float32) for name in ("query_score", "key_score")}
    query, key, value = oracles.heads_of(params, X)
    means = (query.mean(1, keepdims=True) * key).mean(1, keepdims=True)
    expected = oracles.output(params, means * value) + query.reshape(X.shape)
    np.testing.assert_allclose(run(module, {"params": flat}), expected, atol=1e-5)


@pytest.mark.parametrize(("module", "words"), [
    (Linformer(heads=4, share="all"), "share"),
    (Performer(heads=4, kernel="cosine"), "kernel"),
    (FNet(heads=4, norm="forward"), "norm"),
])
def test_unknown_choices_are_named(draw, module, words):
    with pytest.raises(UserError, match=words):
        draw(module, X)


@pytest.mark.parametrize("kind", [Linformer, Performer, FNet, Fastformer])
def test_causal_masks_are_refused(kind):
    module = kind(heads=4)
    causal = jnp.tril(jnp.ones((1, 1, N, N), bool))
    with pytest.raises(UserError, match="causal"):
        jax.eval_shape(lambda x: module.init(jax.random.key(0), x, mask=causal), X)
