import jax
import numpy as np
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.attention.local import LocalBlocks, LocalBlocks2D, Longformer
from tests.models.attention import oracles
from tests.models.attention.oracles import normal

N = 21
X = normal(2, N, 16)
KEYS = np.random.default_rng(1).random((2, 1, 1, N)) < 0.8
PAIRS = np.random.default_rng(2).random((2, 4, N, N)) < 0.7
DIAGONAL = np.eye(N, dtype=bool)
MASKS = {"none": None, "keys": KEYS, "pairs": PAIRS | DIAGONAL}


def blocks_seen(n, block, before, after, causal, g=0):
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            a, b = i - g, j - g
            start = a // block * block
            near = start - before <= b < start + block + (0 if causal else after)
            seen[i, j] = (near or a < 0 or b < 0) and not (causal and j > i)
    return seen


def tiles_seen(rows, columns, block, before, after, g):
    n = g + rows * columns
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            if i < g or j < g:
                seen[i, j] = True
                continue
            seen[i, j] = all(
                a // block * block - before <= b < a // block * block + block + after
                for a, b in zip(divmod(i - g, columns), divmod(j - g, columns), strict=True)
            )
    return seen


def windows_seen(n, half, dilation, causal, g):
    seen = np.zeros((n, n), bool)
    for i in range(n):
        for j in range(n):
            gap = abs(i - j)
            near = gap % dilation == 0 and gap <= half * dilation
            seen[i, j] = (near or i < g or j < g) and not (causal and j > i)
    return seen


def run(module, variables, mask):
    return np.asarray(jax.jit(module.apply)(variables, X, mask=mask))


def visible(seen, mask):
    """With at least one key for each query, as a query without any has no defined output."""
    seen = np.broadcast_to(seen, (1, 4, N, N)) if mask is None else seen & mask
    return seen, seen.any(-1).all(1)


def check(module, variables, seen, mask):
    seen, defined = visible(seen, mask)
    found = run(module, variables, mask)
    assert np.isfinite(found).all()
    assert defined.mean() > 0.5
    seen = seen | ~seen.any(-1, keepdims=True)
    expected = oracles.masked(variables["params"], X, seen)
    defined = np.broadcast_to(defined, found.shape[:2])
    np.testing.assert_allclose(found[defined], expected[defined], atol=5e-6)


@pytest.mark.parametrize(("name", "block", "before", "after", "causal", "g"), [
    ("none", 4, 3, 6, False, 0), ("keys", 5, 7, 0, True, 0), ("pairs", 4, 4, 4, False, 1),
    ("keys", 3, 2, 2, True, 2),
])
def test_blocks_equal_a_dense_mask(draw, name, block, before, after, causal, g):
    module = LocalBlocks(
        heads=4, block=block, before=before, after=after, causal=causal, global_tokens=g
    )
    seen = blocks_seen(N, block, before, after, causal, g)
    check(module, draw(module, X, scale=0.4), seen, MASKS[name])


@pytest.mark.parametrize(("name", "grid", "block", "before", "after", "g"), [
    ("keys", (4, 5), 2, 1, 2, 1), ("none", (3, 7), 3, 2, 0, 0), ("pairs", None, 3, 1, 1, 5),
])
def test_tiles_equal_a_dense_mask(draw, name, grid, block, before, after, g):
    module = LocalBlocks2D(
        heads=4, block=block, before=before, after=after, grid=grid, global_tokens=g
    )
    seen = tiles_seen(*(grid or (4, 4)), block, before, after, g)
    check(module, draw(module, X, scale=0.4), seen, MASKS[name])


@pytest.mark.parametrize(("name", "causal"), [("keys", True), ("pairs", False)])
def test_longformer_heads_equal_their_windows(draw, name, causal):
    dilations = (1, 3, 2, 3)
    module = Longformer(heads=4, window=4, dilation=dilations, causal=causal)
    seen = np.stack([windows_seen(N, 2, d, causal, 0) for d in dilations])
    check(module, draw(module, X, scale=0.4), seen, MASKS[name])


@pytest.mark.parametrize("name", ["none", "pairs"])
def test_longformer_global_tokens_have_their_own_projections(draw, name):
    mask = MASKS[name]
    module = Longformer(heads=4, window=6, dilation=(1, 1, 2, 4), global_tokens=2)
    variables = draw(module, X, scale=0.4)
    # Windows count the tokens that are not global.
    inner = np.stack([windows_seen(N - 2, 3, d, False, 0) for d in (1, 1, 2, 4)])
    seen = np.ones((4, N, N), bool)
    seen[:, 2:, 2:] = inner
    seen, defined = visible(seen, mask)
    params = variables["params"]
    local = oracles.attend(*oracles.heads_of(params, X), seen | ~seen.any(-1, keepdims=True))
    total = oracles.attend(
        *oracles.heads_of(params, X, "_global"), True if mask is None else mask
    )
    expected = oracles.output(params, np.concatenate([total[:, :2], local[:, 2:]], 1))
    defined = np.broadcast_to(defined, expected.shape[:2])
    found = run(module, variables, mask)
    np.testing.assert_allclose(found[defined], expected[defined], atol=5e-6)


def test_all_tokens_global_is_full_attention_with_the_global_projections(draw):
    module = Longformer(heads=4, window=2, global_tokens=N)
    params = draw(module, X, scale=0.4)["params"]
    names = ("query", "key", "value")
    plain = {name: params[f"{name}_global"] for name in names} | {"out": params["out"]}
    expected = run(MultiHeadAttention(heads=4), {"params": plain}, KEYS)
    found = run(module, {"params": params}, KEYS)
    np.testing.assert_allclose(found, expected, atol=3e-6)


@pytest.mark.parametrize("module", [
    LocalBlocks(heads=4, block=N), LocalBlocks(heads=4, block=5, before=N, after=N),
    LocalBlocks2D(heads=4, block=7, grid=(3, 7)), LocalBlocks2D(heads=4, grid=(7, 3), before=9,
                                                                after=9),
    Longformer(heads=4, window=2 * N),
], ids=lambda module: type(module).__name__)
def test_a_window_over_everything_is_full_attention(draw, module):
    variables = draw(module, X, scale=0.4)
    expected = run(MultiHeadAttention(heads=4), variables, KEYS)
    np.testing.assert_allclose(run(module, variables, KEYS), expected, atol=3e-6)


@pytest.mark.parametrize(("module", "words"), [
    (LocalBlocks(heads=4, block=0), "block must be"),
    (LocalBlocks(heads=3), "heads=3"),
    (LocalBlocks(heads=4, global_tokens=N + 1), "global_tokens"),
    (LocalBlocks2D(heads=4), "grid"),
    (LocalBlocks2D(heads=4, grid=(4, 4)), "4 x 4"),
    (Longformer(heads=4, window=3), "window=3"),
    (Longformer(heads=4, dilation=(1, 2)), "dilation"),
])
def test_impossible_shapes_are_named(draw, module, words):
    with pytest.raises(UserError, match=words):
        draw(module, X)
