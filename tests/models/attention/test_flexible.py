"""Flexible heads: exact reductions, every group against loops, masks, losses, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.attention import MultiHeadAttention, weighing
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Grid, TokenSequence, Tree
from jaxcxr.models.attention.groups import Cost, HeadGroup, parse_groups
from jaxcxr.models.attention.spans import Adaptive, Fixed


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, MEMORY = normal(2, 6, 16), normal(2, 9, 16, seed=1)
MASK = np.random.default_rng(2).random((2, 1, 6, 9)) < 0.7


def flexible(text, **options):
    groups, cost = parse_groups(text)
    return FlexibleHeadAttention(groups, cost=cost, **options)


def with_plain(module, plain, x=X, **options):
    """Variables of `module` with the projections of plain attention and all else as it begins."""
    variables = module.init(jax.random.key(0), x, **options)
    return {"params": {**variables["params"], **plain["params"]}}


@pytest.fixture
def plain(draw):
    module = MultiHeadAttention(heads=4)
    return module, draw(module, X, scale=0.4)


@pytest.mark.parametrize("memory", [None, MEMORY])
def test_one_plain_group_is_flax_attention(plain, memory):
    _, variables = plain
    mask = None if memory is None else MASK
    expected = nn.MultiHeadDotProductAttention(num_heads=4).apply(variables, X, memory, mask=mask)
    found = flexible("4*global").apply(variables, X, memory, mask=mask)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_every_group_gets_the_masks_of_its_heads(plain):
    module, variables = plain
    mask = np.random.default_rng(4).random((2, 4, 6, 9)) < 0.7
    found = flexible("1*global+3*global").apply(variables, X, MEMORY, mask=mask)
    expected = module.apply(variables, X, MEMORY, mask=mask)
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-6)


def test_one_plain_group_is_flax_attention_in_double_precision(plain, x64):
    variables = jax.tree.map(lambda x: jnp.array(x, jnp.float64), plain[1])
    x = jnp.array(X, jnp.float64)
    flax = nn.MultiHeadDotProductAttention(num_heads=4, dtype=jnp.float64)
    found = flexible("4*global", dtype=jnp.float64).apply(variables, x)
    np.testing.assert_allclose(found, flax.apply(variables, x), atol=1e-12)


@pytest.mark.parametrize("double", [False, True])
def test_normalised_queries_and_keys_are_those_of_flax(plain, double):
    dtype = jnp.float64 if double else jnp.float32
    scales = {name: 1 + 0.3 * normal(4, seed=seed) for seed, name in enumerate(("query", "key"))}
    with jax.enable_x64(double):
        weights = jax.tree.map(lambda x: jnp.array(x, dtype), plain[1]["params"])
        flax, ours = dict(weights), dict(weights)
        for name, scale in scales.items():
            flax[f"{name}_ln"] = {"scale": jnp.array(scale, dtype)}
            for index in range(2):
                ours[f"group_{index}_{name}_norm"] = {"scale": jnp.array(scale, dtype)}
        oracle = nn.MultiHeadDotProductAttention(num_heads=4, normalize_qk=True, dtype=dtype)
        x, memory = jnp.array(X, dtype), jnp.array(MEMORY, dtype)
        with jax.numpy_dtype_promotion("standard"):
            expected = oracle.apply({"params": flax}, x, memory, mask=MASK)
        module = flexible("1*qk_norm+3*qk_norm", dtype=dtype)
        found = module.apply({"params": ours}, x, memory, mask=MASK)
        np.testing.assert_allclose(found, expected, atol=1e-12 if double else 2e-6)


@pytest.mark.parametrize(
    ("text", "distance"),
    [
        ("1*global+3*global", None),
        ("4*adaptive(2,init=1)", TokenSequence()),
        ("2*adaptive(2,init=1)+2*fixed(5)", TokenSequence()),
        ("4*static", None),
        ("4*token", None),
        ("2*element+2*talking", None),
        ("4*table", Grid(1, 5, prefix=1)),
        ("4*general", None),
    ],
)
def test_what_begins_as_nothing_changes_nothing(plain, text, distance):
    module, variables = plain
    found = flexible(text)
    mask = np.random.default_rng(2).random((2, 1, 1, 6)) < 0.7
    start = with_plain(found, variables, distance=distance)
    np.testing.assert_allclose(
        found.apply(start, X, mask=mask, distance=distance),
        module.apply(variables, X, mask=mask),
        rtol=1e-6,
        atol=1e-6,
    )


def test_a_new_module_has_the_weights_of_plain_attention():
    ours, theirs = flexible("1*global+3*sparsemax"), MultiHeadAttention(heads=4)
    shapes = [jax.eval_shape(m.init, jax.random.key(0), X) for m in (ours, theirs)]
    assert shapes[0] == shapes[1]
    sizes = flexible("1*dim(8,4)+2*dim(4)").init(jax.random.key(0), X)["params"]
    assert sizes["group_0_value"]["kernel"].shape == (16, 1, 4)
    assert sizes["group_1_out"]["kernel"].shape == (2, 4, 16)
    # Glorot & Bengio's bound for all heads of a group taken together
    assert np.abs(sizes["group_0_query"]["kernel"]).max() <= np.sqrt(6 / (16 + 8))


EVERY_GROUP = [
    ("2*sigmoid/qk_norm+2*fixed(2)", TokenSequence()),
    ("2*sparsemax/similarity/alibi+2*entmax15/general/adaptive(1,init=0.3)", TokenSequence()),
    ("2*entmax/biased_general/dynamic(1)+2*quasi/dot", TokenSequence()),
    ("2*kernel/linear/fixed(1)+2*activated_general/talking", TokenSequence()),
    ("2*additive/table+2*deep/sigmoid/adaptive(1,init=0.5)", TokenSequence(reach=2)),
    ("2*location(6)/static+2*feature/token", TokenSequence()),
    ("1*dim(8,4)/element/fixed(1)+2*dim(4,6)/entmax15", Grid(1, 5, prefix=1)),
    ("2*adaptive(1,init=0.25)+2*table", Tree((-1, 0, 1, 0, 3, 4))),
]


CAUSAL = np.tile(np.tril(np.ones((6, 6), bool)), (2, 1, 1, 1))


@pytest.fixture(params=EVERY_GROUP, ids=lambda case: case[0], scope="module")
def case(request):
    """A module with random parameters, its geometry, and its compiled call on (x, mask)."""
    text, distance = request.param
    module = flexible(text)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), X, distance=distance))
    rng = np.random.default_rng(3)
    variables = jax.tree.map(lambda s: rng.normal(scale=0.5, size=s.shape).astype(s.dtype), shapes)
    for name, group in variables["params"].items():
        if "span" in group and not name.endswith("_span"):
            group["span"] = np.abs(group["span"]).astype(np.float32)
    call = jax.jit(lambda x, mask: module.apply(variables, x, mask=mask, distance=distance))
    return module, variables, distance, call


def test_padding_is_inert(case):
    call = case[-1]
    mask = np.ones((2, 1, 6, 6), bool)
    mask[1, :, :, 4:] = False
    changed = X.copy()
    changed[1, 4:] = 7.0
    before, after = call(X, mask), call(changed, mask)
    np.testing.assert_allclose(before[0], after[0], atol=1e-6)
    np.testing.assert_allclose(before[1, :4], after[1, :4], atol=1e-5)
    assert np.isfinite(before).all()


def test_causal_masks_hold(case):
    call = case[-1]
    changed = X.copy()
    changed[:, 4:] = -3.0
    before, after = call(X, CAUSAL), call(changed, CAUSAL)
    np.testing.assert_allclose(before[:, :4], after[:, :4], atol=1e-5)
    assert np.abs(before[:, 4:] - after[:, 4:]).max() > 1e-2


def value_and_gradient(module, variables, mask, distance):
    """Outputs and the gradient of their mean square."""

    def loss(variables):
        out = module.apply(variables, X, mask=mask, distance=distance)
        return jnp.square(out.astype(jnp.float32)).mean(), out

    return jax.jit(jax.grad(loss, has_aux=True))(variables)[::-1]


def test_chunks_of_queries_change_nothing(case, monkeypatch):
    module, variables, distance, _ = case
    expected = value_and_gradient(module, variables, CAUSAL, distance)
    monkeypatch.setattr(weighing, "MANY_PAIRS", 35)
    found = value_and_gradient(module.clone(chunk=4), variables, CAUSAL, distance)
    np.testing.assert_allclose(found[0], expected[0], rtol=1e-5, atol=2e-6)
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-6), found[1], expected[1]
    )


def test_low_precision_is_close_and_stays_finite_without_any_key(case):
    module, variables, distance, call = case
    low = module.clone(dtype=jnp.bfloat16)
    mask = CAUSAL.copy()
    mask[1] = False
    found, gradient = value_and_gradient(low, variables, mask, distance)
    assert found.dtype == jnp.bfloat16
    expected = call(X, mask)
    error = np.abs(found.astype(np.float32) - expected).max()
    assert error < 0.1 * np.abs(expected).max()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(gradient))


def test_heads_of_all_kinds_by_a_loop(draw):
    """Two groups with sizes of their own, written out head by head."""
    module = flexible("2*dim(4,2)/sparsemax/fixed(1)/alibi+1*dim(8,12)/adaptive(2,init=0.6)/token")
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), X, distance=TokenSequence()))
    rng = np.random.default_rng(5)
    variables = jax.tree.map(lambda s: rng.normal(scale=0.4, size=s.shape).astype(s.dtype), shapes)
    p = variables["params"]
    p["group_1"]["span"] = np.array([0.4], np.float32)
    found = module.apply(variables, X, distance=TokenSequence())
    apart = np.abs(np.arange(6)[:, None] - np.arange(6))
    expected = np.zeros((2, 6, 16)) + p["group_0_out"]["bias"]
    for b in range(2):
        for g, heads in ((0, 2), (1, 1)):
            for a in range(heads):
                own = [p[f"group_{g}_{role}"] for role in ("query", "key", "value")]
                q, k, v = (X[b] @ part["kernel"][:, a] + part["bias"][a] for part in own)
                s = q @ k.T / np.sqrt(q.shape[-1])
                if g == 0:
                    s = s - 2.0 ** (-8 * (a + 1) / 2) * apart
                    w = np.zeros((6, 6))
                    for i in range(6):  # sparsemax by its threshold over the sorted window
                        window = apart[i] <= 1
                        z = np.sort(s[i, window])[::-1]
                        sizes = np.arange(1, len(z) + 1)
                        size = sizes[1 + sizes * z > np.cumsum(z)].max()
                        w[i, window] = np.maximum(s[i, window] - (z[:size].sum() - 1) / size, 0)
                    gate = 1.0
                else:
                    e = np.exp(s) * np.clip((2 + 0.4 * 5 - apart) / 2, 0, 1)
                    w = e / e.sum(-1, keepdims=True)
                    logit = X[b] @ p["group_1_gate"]["kernel"][:, 0] + p["group_1_gate"]["bias"][0]
                    gate = 2 / (1 + np.exp(-logit))
                expected[b] += gate * (w @ v) @ p[f"group_{g}_out"]["kernel"][a]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_learned_quantities_have_the_derivatives_of_finite_differences(x64):
    text = "2*adaptive(3,init=0.4,loss=0.3)/entmax/static(0.2)+2*entmax/token(0.1)+cost(0.1,0.5)"
    groups, cost = parse_groups(text)
    module = FlexibleHeadAttention(groups, cost=cost, dtype=jnp.float64)
    x = jnp.array(normal(2, 6, 16), jnp.float64)
    variables = module.init(jax.random.key(0), x, distance=TokenSequence())
    rng = np.random.default_rng(6)
    params = jax.tree.map(
        lambda p: jnp.array(rng.normal(scale=0.4, size=p.shape)), variables["params"]
    )
    params["group_0"]["span"] = jnp.array([0.33, 0.71])
    params["group_0"]["gate"] = jnp.array([0.4, -0.7])
    names = [("group_0", "span"), ("group_0", "alpha"), ("group_0", "gate"), ("group_1", "alpha")]
    weight = jnp.array(rng.normal(size=x.shape))

    @jax.jit
    def loss(params):
        out, sown = module.apply(
            {"params": params}, x, distance=TokenSequence(), train=True, mutable=["losses"],
            rngs={"dropout": jax.random.key(1)},
        )
        assert set(sown["losses"]) == {"span", "gate", "cost"}
        return (out * weight).sum() + sum(sum(v) for v in sown["losses"].values())

    gradient = jax.jit(jax.grad(loss))(params)
    for group, name in names:
        for i in range(2):
            values = []
            for step in (1e-6, -1e-6):
                moved = params[group][name].at[i].add(step)
                values.append(loss({**params, group: {**params[group], name: moved}}))
            expected = (values[0] - values[1]) / 2e-6
            np.testing.assert_allclose(gradient[group][name][i], expected, rtol=1e-5, atol=1e-7)


def sown(text, x=X, distance=None):
    module = flexible(text)
    variables = module.init(jax.random.key(0), x, distance=distance)
    return module.apply(
        variables, x, distance=distance, train=True, mutable=["losses"],
        rngs={"dropout": jax.random.key(0)},
    )[1].get("losses", {})


def test_losses_by_hand():
    assert sown("4*global") == {}
    span = sown("1*adaptive(1,init=0.5,loss=0.2)+3*global", distance=TokenSequence())["span"]
    np.testing.assert_allclose(span, [0.2 * 0.5 / 4], rtol=1e-6)
    dynamic = sown("4*dynamic(1,loss=2.0)", distance=TokenSequence())["span"]
    np.testing.assert_allclose(dynamic, [2 / (1 + np.exp(-2))], rtol=1e-6)
    gate = sown("2*static(0.3)+2*global")["gate"]
    np.testing.assert_allclose(gate, [0.3 / 2 / (1 + np.exp(-2.5 - 0.33 * np.log(11)))], rtol=1e-5)
    np.testing.assert_allclose(sown("4*token(0.4)")["gate"], [0.4 * 0.5], rtol=1e-6)


def test_expected_cost_by_hand():
    plain = 8 * 6 * 16**2 + 4 * 6 * 6 * 16  # FLOPs of four equal heads on 6 tokens of width 16
    np.testing.assert_allclose(sown("4*global+cost(0.25,2.0)")["cost"], [2 * 0.75], rtol=1e-6)
    # Windows of 1: two tokens see two keys, four see three.
    narrow = plain / 2 + (8 * 6 * 16**2 + 4 * 6 * (16 / 6) * 16) / 2
    found = sown("2*global+2*fixed(1)+cost(0.0,1.0)", distance=TokenSequence())["cost"]
    np.testing.assert_allclose(found, [narrow / plain], rtol=1e-6)
    chance = 1 / (1 + np.exp(-2.5 - 0.33 * np.log(11)))
    np.testing.assert_allclose(sown("4*static+cost(0.0,1.0)")["cost"], [chance], rtol=1e-5)
    np.testing.assert_allclose(sown("4*global+cost(1.5,1.0)")["cost"], [0.0])


def test_chunks_bound_the_memory():
    x = jax.ShapeDtypeStruct((1, 2048, 16), jnp.float32)
    module = flexible("4*global", chunk=64)
    variables = jax.eval_shape(module.init, jax.random.key(0), x)
    gradient = jax.grad(lambda v, x: module.apply(v, x).sum())
    memory = jax.jit(gradient).lower(variables, x).compile().memory_analysis()
    assert memory.temp_size_in_bytes < 4 * 2048**2 * 4  # less than the weights alone


def test_dropout_and_gates_are_random_in_training_only():
    module = flexible("2*fixed(1)+2*static", dropout=0.5)
    variables = module.init(jax.random.key(0), X, distance=TokenSequence())

    def call(seed, train):
        return module.apply(
            variables, X, distance=TokenSequence(), train=train,
            rngs={"dropout": jax.random.key(seed)},
        )

    assert np.abs(call(0, True) - call(1, True)).max() > 0.05
    np.testing.assert_array_equal(call(0, False), call(1, False))


@pytest.mark.parametrize(
    ("layout", "geometry"),
    [
        ({}, TokenSequence()),
        ({"grid": (1, 5), "global_tokens": 1}, Grid(1, 5, 1)),
        ({"parents": (-1, 0, 1, 0, 3, 4)}, Tree((-1, 0, 1, 0, 3, 4))),
    ],
)
def test_the_layout_is_the_geometry_that_a_call_may_replace(plain, layout, geometry):
    module = flexible("4*fixed(1)", **layout)
    found = module.apply(plain[1], X)
    np.testing.assert_array_equal(found, module.apply(plain[1], X, distance=geometry))
    assert np.abs(found - module.apply(plain[1], X, distance=Grid(2, 3))).max() > 1e-3


def test_errors_say_what_to_do():
    def call(text, **options):
        return flexible(text).init(jax.random.key(0), X, **options)

    with pytest.raises(UserError, match="cannot share 16"):
        call("5*global")
    with pytest.raises(UserError, match="grid of 2x2"):
        call("4*fixed(3)", distance=Grid(2, 2))
    with pytest.raises(UserError, match="table"):
        call("4*table", distance=np.zeros((6, 6)))


def test_groups_are_values():
    group = HeadGroup(4, span=Fixed(2))
    assert hash(group) == hash(HeadGroup(4, span=Fixed(2)))
    assert group != HeadGroup(4, span=Adaptive(2))
    assert Cost() == Cost(0.5, 0.1)
