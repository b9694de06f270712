"""Windows against all pairs: the same outputs and gradients, and less work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Grid, TokenSequence
from jaxcxr.models.attention.groups import parse_groups


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def padding(n):
    mask = np.ones((2, 1, 1, n), bool)
    mask[1, ..., -5:] = False
    return mask


LINE, GRID = 61, Grid(7, 9, prefix=1)
CAUSAL = np.tril(np.ones((1, 1, LINE, LINE), bool))
CASES = {
    "line": ("2*fixed(5)", TokenSequence(), LINE, None),
    "line, padding": ("2*fixed(17)/table/entmax15", TokenSequence(), LINE, padding(LINE)),
    "line, causal": ("2*fixed(5)/alibi/talking", TokenSequence(), LINE, CAUSAL),
    "line, both": (
        "1*fixed(3)/sigmoid+1*fixed(4)/quasi", TokenSequence(), LINE, CAUSAL & padding(LINE)
    ),
    "line, ramped": ("1*ramped(2.5,1.5)+1*ramped(4)/sparsemax", TokenSequence(), LINE, CAUSAL),
    "line, learned": (
        "1*adaptive(2,limit=5)+1*dynamic(1,limit=3)/entmax", TokenSequence(), LINE, None
    ),
    "grid, learned": ("1*adaptive(1,limit=1.5)+1*dynamic(1,limit=1)", GRID, 64, padding(64)),
    "grid": ("2*fixed(1)/table", GRID, 64, None),
    "grid, padding": ("2*fixed(2)/additive", GRID, 64, padding(64)),
    "grid, mask of every pair": (
        "2*fixed(1)/kernel/linear", GRID, 64, np.random.default_rng(1).random((2, 2, 64, 64)) < 0.8
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_windows_equal_all_pairs_forward_and_backward(name):
    text, geometry, tokens, mask = CASES[name]
    x = normal(2, tokens, 8)
    module = FlexibleHeadAttention(parse_groups(text)[0])
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, distance=geometry))
    rng = np.random.default_rng(3)
    variables = jax.tree.map(lambda s: rng.normal(scale=0.5, size=s.shape).astype(s.dtype), shapes)

    def run(windows):
        def loss(variables, x):
            out = module.clone(windows=windows).apply(variables, x, mask=mask, distance=geometry)
            return jnp.square(out).mean(), out

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(variables, x)

    (gradient, out), (expected_gradient, expected) = run(True), run(False)
    np.testing.assert_allclose(out, expected, atol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=2e-6),
        gradient, expected_gradient,
    )


def flops(text, tokens, geometry, *, windows, backward):
    """FLOPs of attention by XLA's count, without the projections."""
    module = FlexibleHeadAttention(parse_groups(text)[0], windows=windows)
    x = jax.ShapeDtypeStruct((1, tokens, 32), jnp.float32)
    shapes = jax.eval_shape(
        lambda: module.init(jax.random.key(0), jnp.zeros(x.shape), distance=geometry)
    )

    def call(variables, x):
        return module.apply(variables, x, distance=geometry).sum()

    function = jax.grad(call, (0, 1)) if backward else call
    total = jax.jit(function).lower(shapes, x).compile().cost_analysis()["flops"]
    return total - (3 if backward else 1) * 8 * tokens * 32**2


@pytest.mark.parametrize("geometry", [TokenSequence(), GRID])
def test_a_span_that_has_learned_is_ramped(geometry):
    x = normal(1, 64, 8)
    learned, ramped, bounded = (
        FlexibleHeadAttention(parse_groups(text)[0])
        for text in ("2*adaptive(1.5)", "2*ramped(1.5,1.5)", "2*adaptive(1.5,limit=2)")
    )
    weights = ramped.init(jax.random.key(0), x, distance=geometry)["params"]

    def run(module, share):
        def loss(weights, x):
            own = {} if share is None else {"group_0": {"span": jnp.full(2, share)}}
            out = module.apply({"params": weights | own}, x, distance=geometry)
            return jnp.square(out).mean(), out

        return jax.jit(jax.grad(loss, (0, 1), has_aux=True))(weights, x)

    expected = run(learned, 1.5 / geometry.largest(64, 64))
    for found in (run(ramped, None), run(bounded, 1.5 / 2)):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
                     found, expected)


def test_a_bounded_span_does_a_fraction_of_the_work():
    full, ramped, bounded = (
        flops(text, 512, TokenSequence(), windows=True, backward=True)
        for text in ("2*adaptive(2)", "2*ramped(14.5,2)", "2*adaptive(2,limit=15)")
    )
    assert max(ramped, bounded) < full / 6


@pytest.mark.parametrize("backward", [False, True])
def test_a_window_on_a_line_does_a_fraction_of_the_work(backward):
    full = flops("2*global", 512, TokenSequence(), windows=True, backward=backward)
    window = flops("2*fixed(16)", 512, TokenSequence(), windows=True, backward=backward)
    masked = flops("2*fixed(16)", 512, TokenSequence(), windows=False, backward=backward)
    assert window < full / 6  # 48 of 512 keys, and the mask
    assert masked > full


def test_the_work_of_a_window_grows_with_the_length_alone():
    short, long = (
        flops("2*fixed(16)", n, TokenSequence(), windows=True, backward=False) for n in (256, 1024)
    )
    assert 3.6 < long / short < 4.4


def test_a_window_on_a_grid_does_a_fraction_of_the_work():
    grid = Grid(24, 24, prefix=1)
    full = flops("2*global", 577, grid, windows=True, backward=False)
    window = flops("2*fixed(2)", 577, grid, windows=True, backward=False)
    assert window < full / 5  # 37 of 577 keys, the mask, and the class token


def test_dropout_in_windows_keeps_the_mean():
    module = FlexibleHeadAttention(parse_groups("2*fixed(3)")[0], dropout=0.5)
    x = normal(1, LINE, 8)
    variables = module.init(jax.random.key(0), x)
    plain = module.apply(variables, x)
    many = np.repeat(x, 2000, 0)
    out = jax.jit(module.apply, static_argnames="train")(
        variables, many, train=True, rngs={"dropout": jax.random.key(1)}
    )
    error = np.std(out, 0) / np.sqrt(2000)
    assert (error > 1e-3).any()
    assert (np.abs(out.mean(0) - plain[0]) < 5.5 * error + 1e-5).all()
