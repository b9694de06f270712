import jax
import numpy as np
import pytest

from jaxcxr.models.attention import MultiHeadAttention
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import Grid, TokenSequence
from jaxcxr.models.attention.groups import parse_groups


def normal(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


X, MEMORY = normal(2, 40, 16), normal(2, 9, 16, seed=1)
PADDING = np.arange(40) < 33


def captured(module, x, memory=None, **options):
    """Output, variables and what was captured of a call with random weights."""
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x, memory))
    assert set(shapes) == {"params"}
    rng = np.random.default_rng(3)
    variables = jax.tree.map(lambda s: rng.normal(scale=0.5, size=s.shape).astype(s.dtype), shapes)
    out, found = module.apply(variables, x, memory, mutable=["attention"], **options)
    np.testing.assert_array_equal(out, module.apply(variables, x, memory, **options))
    found = {name: value for name, (value,) in found["attention"].items()}
    return out, variables["params"], found


def mixed(params, weights, source):
    """Output of weights on values, in float64."""
    value, out = params["value"], params["out"]
    value = np.einsum("bnd,dhe->bnhe", source, value["kernel"]) + value["bias"]
    heads = np.einsum("bhqk,bkhe->bqhe", np.float64(weights), value)
    return np.einsum("bqhe,hed->bqd", heads, out["kernel"]) + out["bias"]


@pytest.mark.parametrize(
    "module",
    [
        MultiHeadAttention(4),
        FlexibleHeadAttention(parse_groups("1*fixed(3)+3*entmax/adaptive(2,init=0.5)")[0]),
        FlexibleHeadAttention(parse_groups("2*fixed(3)/sparsemax+2*alibi")[0]),
    ],
    ids=["mha", "spans", "window and bias"],
)
@pytest.mark.parametrize("memory", [None, MEMORY], ids=["self", "memory"])
def test_captured_weights_times_values_are_the_output(module, memory):
    mask = PADDING[None, None, None] if memory is None else None
    out, params, found = captured(module, X, memory, mask=mask)
    keys = 40 if memory is None else 9
    weights = found["weights"]
    assert weights.shape == (2, 4, 40, keys)
    np.testing.assert_allclose(weights.sum(-1), 1, atol=1e-5)
    source = X if memory is None else memory
    # Queries of the padding may see no key, which is the mean of other values by windows.
    rows = PADDING if memory is None else slice(None)
    np.testing.assert_allclose(out[:, rows], mixed(params, weights, source)[:, rows], atol=2e-5)
    if mask is not None:
        assert (weights[:, :, PADDING][..., ~PADDING] == 0).all()


def test_properties_of_heads():
    text = "2*fixed(3)/sigmoid+1*adaptive(2)/entmax/static+1*dynamic(1,limit=4)/sparsemax/token"
    groups = parse_groups(text)[0]
    _, params, found = captured(FlexibleHeadAttention(groups), X, distance=TokenSequence())
    own = params["group_1"]
    share = np.clip(own["span"], 0, 1)
    logits = X @ params["group_2_span"]["kernel"] + params["group_2_span"]["bias"]
    dynamic = (4 / (1 + np.exp(-logits))).mean()
    np.testing.assert_allclose(found["span"], [3, 3, 39 * share[0], dynamic], rtol=1e-5)
    order = 1 + 1 / (1 + np.exp(-own["alpha"][0]))
    np.testing.assert_allclose(found["alpha"], [np.nan, np.nan, order, 2], rtol=1e-6)
    static = np.clip(1.2 / (1 + np.exp(-own["gate"][0])) - 0.1, 0, 1)
    logits = X @ params["group_2_gate"]["kernel"][..., 0] + params["group_2_gate"]["bias"][0]
    token = (2 / (1 + np.exp(-logits))).mean()
    np.testing.assert_allclose(found["gate"], [1, 1, static, token], rtol=1e-5)


def test_a_head_that_sees_everything_reaches_the_largest_distance():
    module = FlexibleHeadAttention(parse_groups("1*fixed(9)+1*global+2*entmax15")[0])
    _, _, found = captured(module, X[:, :36], distance=Grid(5, 7, prefix=1))
    np.testing.assert_array_equal(found["span"], [6, 6, 6, 6])
    np.testing.assert_allclose(found["alpha"], [1, 1, 1.5, 1.5])
    assert found["weights"].shape == (2, 4, 36, 36)


def test_weights_are_those_before_dropout():
    module = FlexibleHeadAttention(parse_groups("4*global")[0], dropout=0.5)
    rngs = {"dropout": jax.random.key(0)}
    _, params, found = captured(module, X, train=True, rngs=rngs)
    plain = module.apply({"params": params}, X, mutable=["attention"])[1]["attention"]["weights"][0]
    np.testing.assert_array_equal(found["weights"], plain)
