import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from jaxcxr.models.attention import weighing
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Grid, TokenSequence
from jaxcxr.models.attention.groups import HeadGroup, parse_groups
from jaxcxr.models.attention.spans import Fixed


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


HOPPER = {
    "platform": "cuda", "capability": 9.0, "dtype": jnp.bfloat16, "width": 64, "value_width": 64,
    "queries": 197, "keys": 197, "masked": False, "dropout": False,
}


@pytest.mark.parametrize(
    ("change", "who"),
    [
        ({}, "cudnn"),
        ({"dtype": jnp.float16}, "cudnn"),
        ({"width": 256, "value_width": 256}, "cudnn"),
        ({"width": 256, "value_width": 256, "capability": 8.6}, "own"),
        ({"width": 128, "value_width": 128, "capability": 8.0}, "cudnn"),
        ({"masked": True, "queries": 198, "keys": 198}, "cudnn"),
        ({"masked": True}, "own"),
        ({"capability": 7.5}, "own"),
        ({"dtype": jnp.float32}, "own"),
        ({"dtype": jnp.float64}, "own"),
        ({"width": 60, "value_width": 60}, "own"),
        ({"value_width": 32}, "own"),
        ({"dropout": True}, "own"),
        ({"platform": "cpu"}, "own"),
        ({"platform": "tpu"}, "own"),
        ({"platform": "rocm"}, "own"),
    ],
)
def test_the_choice(change, who):
    found, why = weighing.choose_kernel(**{**HOPPER, **change})
    assert found == who
    assert why


def test_plain_heads():
    assert weighing.is_plain(HeadGroup(2, gate="token", qk_norm=True))
    assert weighing.is_plain(HeadGroup(2, align="biased_general"))
    others = [
        HeadGroup(2, span=Fixed(3)), HeadGroup(2, norm="entmax15"), HeadGroup(2, mix="talking"),
        HeadGroup(2, rel_bias="alibi"), HeadGroup(2, align="additive"),
        HeadGroup(2, align="activated_general"),
    ]
    assert not any(weighing.is_plain(group) for group in others)


@pytest.mark.parametrize("align", weighing._BILINEAR)
def test_the_fused_call_means_the_same(align):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 3, 8)), jnp.float32) for n in (5, 7, 7))
    params = {
        "log_scale": jnp.ones(3), "matrix": jnp.asarray(rng.normal(size=(3, 8, 8)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=(3, 8)), jnp.float32),
    }
    mask = jnp.asarray(rng.random((2, 1, 1, 7)) < 0.6).at[1].set(False)
    group = HeadGroup(3, align=align)
    found = weighing.by_fused_kernel(group, params, query, key, value, mask, "xla")
    rule = weighing.Rule(group, None)
    expected = weighing.everything(rule, params, query, key, value, None, mask)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_choice_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *values: said.append(text % values))
    weighing._say.cache_clear()
    module = FlexibleHeadAttention(parse_groups("2*global+2*fixed(1)")[0])
    for seed in range(2):
        module.init(jax.random.key(seed), jnp.zeros((1, 4, 8)))
    assert len(said) == 1
    assert "products of matrices" in said[0]
    assert "cpu" in said[0]


def test_the_fused_kernel_is_called_where_it_is_chosen(monkeypatch):
    module = FlexibleHeadAttention(parse_groups("2*global+2*token")[0])
    x = jnp.asarray(np.random.default_rng(1).normal(size=(1, 4, 8)), jnp.float32)
    variables = module.init(jax.random.key(0), x)
    expected = module.apply(variables, x)
    calls = []

    def attend(*arguments):
        calls.append(arguments[0])
        return jnp.zeros_like(arguments[4])

    monkeypatch.setattr(weighing, "choose_kernel", lambda **_: ("cudnn", "a test"))
    monkeypatch.setattr(weighing, "by_fused_kernel", attend)
    assert np.abs(module.apply(variables, x) - expected).max() > 1e-3
    assert len(calls) == 2
