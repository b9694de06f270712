import jax
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.attention.sparse import Fixed, Strided
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N = 23
X = normal(2, N, 16)
KEYS = np.random.default_rng(1).random((2, 1, 1, N)) < 0.8
PAIRS = (np.random.default_rng(2).random((2, 4, N, N)) < 0.7) | np.eye(N, dtype=bool)
MASKS = {"none": np.ones((1, 1, 1, N), bool), "keys": KEYS, "pairs": PAIRS}


def strided(n, stride, causal):
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            near = i - stride <= j <= i + stride
            seen[i, j] = (near or (i - j) % stride == 0) and not (causal and j > i)
    return seen


def fixed(n, stride, summary, causal):
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            ends = j % stride >= stride - summary
            seen[i, j] = (i // stride == j // stride or ends) and not (causal and j > i)
    return seen


def run(module, variables, mask=None):
    return np.asarray(jax.jit(module.apply)(variables, X, mask=mask))


@pytest.mark.parametrize(("name", "module", "seen"), [
    ("none", Strided(heads=4, stride=4), strided(N, 4, False)),
    ("keys", Strided(heads=4, stride=5, causal=True), strided(N, 5, True)),
    ("pairs", Strided(heads=4), strided(N, 5, False)),
    ("none", Fixed(heads=4, stride=6, summary=2, causal=True), fixed(N, 6, 2, True)),
    ("keys", Fixed(heads=4, stride=4, summary=1), fixed(N, 4, 1, False)),
    ("pairs", Fixed(heads=4, summary=3), fixed(N, 5, 3, False)),
], ids=lambda value: type(value).__name__ if hasattr(value, "heads") else None)
def test_the_pattern_equals_a_dense_mask_by_loops(draw, name, module, seen):
    variables = draw(module, X, scale=0.4)
    mask = MASKS[name]
    seen = seen & mask
    defined = np.broadcast_to(seen.any(-1).all(1), X.shape[:2])
    assert defined.mean() > 0.8
    expected = oracles.masked(variables["params"], X, seen | ~seen.any(-1, keepdims=True))
    found = run(module, variables, None if name == "none" else mask)
    assert np.isfinite(found).all()
    np.testing.assert_allclose(found[defined], expected[defined], atol=5e-6)


@pytest.mark.parametrize("module", [
    Strided(heads=4, stride=N, causal=True), Strided(heads=4, stride=1, causal=True),
    Fixed(heads=4, stride=N, causal=True), Fixed(heads=4, stride=6, summary=6, causal=True),
], ids=lambda module: f"{type(module).__name__}{module.stride}")
def test_a_pattern_of_everything_is_causal_full_attention(draw, module):
    variables = draw(module, X, scale=0.4)
    causal = np.tril(np.ones((1, 1, N, N), bool))
    expected = run(MultiHeadAttention(heads=4), variables, causal)
    np.testing.assert_allclose(run(module, variables), expected, atol=3e-6)


@pytest.mark.parametrize("module", [
    Strided(heads=1, stride=6, causal=True), Fixed(heads=1, stride=6, causal=True),
    Strided(heads=1, stride=6), Fixed(heads=1, stride=6),
], ids=lambda module: f"{type(module).__name__}{module.causal}")
def test_two_hops_reach_everything(draw, module):
    n = 36
    x = normal(1, n, 4)
    variables = draw(module, x, scale=0.4)
    jacobian = jax.jit(jax.jacrev(lambda x: module.apply(variables, x)[0].sum(-1)))(x)
    seen = np.abs(jacobian[:, 0]).max(-1) > 0
    reached = seen.astype(int) @ seen > 0
    # Blocks end in one position that all see; the last of them is the last position.
    everything = np.tril(np.ones((n, n), bool)) if module.causal else np.ones((n, n), bool)
    np.testing.assert_array_equal(reached, everything)
    assert seen.mean() < 0.6


@pytest.mark.parametrize(("module", "words"), [
    (Strided(heads=4, stride=-1), "stride=-1"), (Fixed(heads=4, stride=4, summary=5), "summary=5"),
])
def test_impossible_patterns_are_named(draw, module, words):
    with pytest.raises(UserError, match=words):
        draw(module, X)
