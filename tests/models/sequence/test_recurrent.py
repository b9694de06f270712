"""Cells and layers against loops in NumPy, and their invariants under padding."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr.errors import UserError
from jaxcxr.models.sequence import recurrent

X = np.random.default_rng(0).normal(size=(3, 5, 4)).astype(np.float32)
MASK = np.arange(5) < np.array([5, 3, 1])[:, None]


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def rnn(p, x, h, c):
    return np.tanh(x @ p["i"]["kernel"] + p["i"]["bias"] + h @ p["h"]["kernel"]), c


def lstm(p, x, h, c):
    i, f, g, o = (
        x @ p["i" + k]["kernel"] + h @ p["h" + k]["kernel"] + p["h" + k]["bias"] for k in "ifgo"
    )
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c


def gru(p, x, h, c, before=False):
    by_x = {k: x @ p["i" + k]["kernel"] + p["i" + k]["bias"] for k in "rzn"}
    r, z = (sigmoid(by_x[k] + h @ p["h" + k]["kernel"]) for k in "rz")
    if before:
        new = np.tanh(by_x["n"] + (r * h) @ p["hn"]["kernel"])
    else:
        new = np.tanh(by_x["n"] + r * (h @ p["hn"]["kernel"] + p["hn"]["bias"]))
    return z * h + (1 - z) * new, c


def gru_thesis(p, x, h, c):
    return gru(p, x, h, c, before=True)


STEPS = {"rnn": rnn, "lstm": lstm, "gru": gru, "gru_thesis": gru_thesis}


def loop(step, params, x, width=6):
    """Outputs of one direction of one unpadded sequence `[steps, in]`."""
    h = c = np.zeros(width)
    outputs = []
    for frame in x:
        h, c = step(params, frame, h, c)
        outputs.append(h)
    return np.array(outputs)


def both_ways(step, params, x, layer=0):
    forward = loop(step, params[f"forward_{layer}"], x)
    backward = loop(step, params[f"backward_{layer}"], x[::-1])[::-1]
    return np.concatenate([forward, backward], -1)


@pytest.mark.parametrize("kind", recurrent.CELLS)
def test_two_bidirectional_layers_are_the_loops_of_the_equations(kind, draw):
    module = recurrent.Recurrent(kind, 6, layers=2, bidirectional=True)
    variables = draw(module, X, scale=0.7)
    params = jax.tree.map(np.float64, variables["params"])
    found = module.apply(variables, X, MASK)
    assert found.shape == (3, 5, 12)
    for x, real, outputs in zip(X, MASK, found, strict=True):
        expected = both_ways(STEPS[kind], params, x[real].astype(np.float64))
        expected = both_ways(STEPS[kind], params, expected, 1)
        np.testing.assert_allclose(outputs[real], expected, atol=1e-5)
        np.testing.assert_array_equal(outputs[~real], 0)


def test_the_two_gru_differ_by_where_they_reset(draw):
    after, before = recurrent.Recurrent("gru", 6), recurrent.Recurrent("gru_thesis", 6)
    params = draw(before, X, scale=0.7)["params"]["forward_0"]
    extended = {**params, "hn": {**params["hn"], "bias": np.zeros(6, np.float32)}}
    ours = before.apply({"params": {"forward_0": params}}, X)
    theirs = after.apply({"params": {"forward_0": extended}}, X)
    # The first step starts from zero, where both are the same.
    np.testing.assert_allclose(ours[:, 0], theirs[:, 0], atol=1e-6)
    assert np.abs(ours - theirs).max() > 0.01


def test_no_mask_is_linens_own_bidirectional_rnn(draw):
    ours = recurrent.Recurrent("lstm", 6, bidirectional=True)
    theirs = nn.Bidirectional(
        nn.RNN(nn.OptimizedLSTMCell(6, dtype=jnp.float32)),
        nn.RNN(nn.OptimizedLSTMCell(6, dtype=jnp.float32)),
    )
    variables = draw(ours, X, scale=0.7)
    forward, backward = (variables["params"][f"{way}_0"] for way in ("forward", "backward"))
    ported = {"forward_rnn": {"cell": forward}, "backward_rnn": {"cell": backward}}
    shapes = jax.tree.map(jnp.shape, jax.eval_shape(theirs.init, jax.random.key(0), X)["params"])
    assert shapes == jax.tree.map(np.shape, ported)
    np.testing.assert_allclose(
        ours.apply(variables, X), theirs.apply({"params": ported}, X), atol=1e-6
    )


@pytest.mark.parametrize("kind", recurrent.CELLS)
def test_padding_changes_nothing_wherever_it_stands(kind, draw):
    module = recurrent.Recurrent(kind, 6, bidirectional=True)
    variables = draw(module, X, scale=0.7)
    run = jax.jit(lambda x, mask: module.apply(variables, x, mask, method="run"))
    outputs, carries = run(X, MASK)
    # The same real frames, in other places and among other padding.
    moved, mask = np.full_like(X, 9.0), np.zeros_like(MASK)
    for row, places in enumerate(([0, 1, 2, 3, 4], [0, 2, 4], [3])):
        moved[row, places], mask[row, places] = X[row, MASK[row]], True
    others, same = run(moved, mask)
    np.testing.assert_allclose(others[mask], outputs[MASK], atol=1e-6)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), same, carries)


def test_states_are_those_at_the_real_ends_and_zero_without_any_step(draw):
    module = recurrent.Recurrent("lstm", 6, layers=2, bidirectional=True)
    mask = np.arange(5) < np.array([5, 3, 0])[:, None]
    outputs, carries = module.apply(draw(module, X, scale=0.7), X, mask, method="run")
    forward, backward = (recurrent.hidden(carry) for carry in carries[-1])
    np.testing.assert_allclose(forward[0], outputs[0, 4, :6], atol=1e-6)
    np.testing.assert_allclose(forward[1], outputs[1, 2, :6], atol=1e-6)
    np.testing.assert_allclose(backward[:2], outputs[:2, 0, 6:], atol=1e-6)
    for state in jax.tree.leaves(carries):
        np.testing.assert_array_equal(state[2], 0)


def test_padding_has_no_gradient_and_the_rest_has(draw):
    module = recurrent.Recurrent("gru", 6, bidirectional=True)
    variables = draw(module, X, scale=0.7)
    weight = np.random.default_rng(1).normal(size=(3, 5, 12)).astype(np.float32)
    x = np.where(MASK[..., None], X, np.nan)

    def total(params, x):
        return (module.apply({"params": params}, x, MASK) * weight).sum()

    to_params, to_x = jax.jit(jax.grad(total, (0, 1)))(variables["params"], x)
    np.testing.assert_array_equal(to_x[~MASK], 0)
    assert (np.abs(to_x[MASK]).max(-1) > 1e-3).all()
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(to_params))


@pytest.mark.parametrize("kind", recurrent.CELLS)
def test_bfloat16_is_near_float32(kind, draw):
    single = recurrent.Recurrent(kind, 6)
    half = recurrent.Recurrent(kind, 6, dtype=jnp.bfloat16)
    variables = draw(single, X, scale=0.5)
    found = half.apply(variables, X, MASK)
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(
        found.astype(np.float32), single.apply(variables, X, MASK), atol=0.03
    )


def test_dropout_acts_between_layers_only(draw):
    def difference(layers):
        module = recurrent.Recurrent("rnn", 6, layers, dropout=0.5)
        variables, rngs = draw(module, X, scale=0.7), {"dropout": jax.random.key(0)}
        trained = module.apply(variables, X, train=True, rngs=rngs)
        return np.abs(trained - module.apply(variables, X)).max()

    assert difference(1) == 0
    assert difference(2) > 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [({"cell": "gru_thesi"}, "Did you mean 'gru_thesis'"), ({"layers": 0}, "at least 1")],
)
def test_bad_options_are_answered(options, message):
    with pytest.raises(UserError, match=message):
        recurrent.Recurrent(**options).init(jax.random.key(0), X)
