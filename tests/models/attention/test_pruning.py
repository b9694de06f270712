"""Layers of flexible heads made smaller compute what they computed."""

import jax
import numpy as np
import pytest

from jaxcxr.models.attention import pruning
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.geometry import TokenSequence
from jaxcxr.models.attention.groups import HeadGroup, format_groups, parse_groups
from jaxcxr.models.attention.spans import Fixed, Global

DIM, FRAMES = 16, 12
OPEN, CLOSED, HALF = 2.5, -2.5, 0.0  # log odds; gates 1, 0 and 1/2
X = np.random.default_rng(0).normal(size=(2, FRAMES, DIM)).astype(np.float32)
PADDING = np.arange(FRAMES)[None, None, None] < 9


def layer(text, gates=(), spans=(), x=X):
    """Groups and cost of a layer, and random parameters with gates and spans set by group."""
    groups, cost = parse_groups(text)
    module = FlexibleHeadAttention(groups, cost=cost)
    shapes = jax.eval_shape(lambda: module.init(jax.random.key(0), x))["params"]
    rng = np.random.default_rng(3)
    params = jax.tree.map(lambda s: rng.normal(scale=0.3, size=s.shape).astype(s.dtype), shapes)
    for name, given in (("gate", gates), ("span", spans)):
        for index, values in dict(given).items():
            params[f"group_{index}"][name] = np.array(values, np.float32)
    return groups, cost, params


def output(groups, params, x=X):
    mask = PADDING if x is X else None
    return FlexibleHeadAttention(groups).apply({"params": params}, x, mask=mask)


def pruned(groups, cost, params, x=X, exact=True, **how):
    """The plan and the new parameters, after checking that outputs and names agree."""
    plan = pruning.plan(groups, cost, params, DIM, TokenSequence(), x.shape[1], **how)
    small = pruning.apply(plan, params)
    new, new_cost = parse_groups(plan.text)
    assert new == tuple(part.group for part in plan.parts)
    assert new_cost == plan.cost
    wanted = jax.eval_shape(
        lambda: FlexibleHeadAttention(new).init(jax.random.key(0), x)["params"]
    )
    assert jax.tree.map(np.shape, small) == jax.tree.map(lambda s: s.shape, wanted)
    wanted = np.asarray(output(groups, params, x))
    difference = np.abs(output(new, small, x) - wanted).max()
    assert (difference <= 1e-6 * max(1, np.abs(wanted).max())) == exact
    return plan, small


def size(params):
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def head(width, value=None):
    """Parameters of one head, without the bias of the output."""
    value = value or width
    return (DIM + 1) * (2 * width + value) + DIM * value


@pytest.mark.parametrize(
    ("text", "gates", "heads", "more"),
    [
        ("4*static", {0: (OPEN, CLOSED, HALF, OPEN)}, {0: (0, 2, 3)}, 0),
        ("2*static/entmax+2*token", {0: (CLOSED, HALF)}, {0: (1,), 1: (0, 1)}, 1 + 2 * 17),
        ("2*static+2*static/additive", {0: (CLOSED,) * 2, 1: (HALF, OPEN)}, {1: (0, 1)}, 2 * 40),
        ("2*static/table/qk_norm+2*global", {0: (HALF, CLOSED)}, {0: (0,), 1: (0, 1)}, 257 + 8),
        ("2*element+2*dynamic/static", {1: (CLOSED, HALF)}, {0: (0, 1), 1: (1,)}, 2 * 68 + 17),
        ("3*static/talking+1*global", {0: (CLOSED, HALF, OPEN)}, {0: (0, 1, 2), 1: (0,)}, 18),
        ("3*static/alibi+1*global", {0: (CLOSED, HALF, OPEN)}, {0: (0, 1, 2), 1: (0,)}, 0),
        ("4*static/alibi", {0: (CLOSED, HALF, CLOSED, OPEN)}, {0: (1, 3)}, 0),
        ("2*static/talking+2*global", {0: (CLOSED, CLOSED)}, {1: (0, 1)}, 0),
    ],
)
def test_closed_heads_go_and_outputs_stay(text, gates, heads, more):
    groups, cost, params = layer(text, gates)
    plan, small = pruned(groups, cost, params)
    assert {part.source: part.heads for part in plan.parts} == heads
    count = sum(map(len, heads.values()))
    assert size(small) == count * head(DIM // 4) + DIM + more
    assert all(part.group.gate != "static" for part in plan.parts)


def test_sizes_of_heads_are_kept():
    gates = {0: (HALF, CLOSED), 1: (OPEN,)}
    groups, cost, params = layer("2*static/dim(6,3)+1*static/dim(4)", gates)
    plan, small = pruned(groups, cost, params)
    assert size(small) == head(6, 3) + head(4) + DIM
    assert plan.text == "1*global/dim(6,3)+1*global/dim(4)"
    # Heads of one size are in arrays of their own no longer.
    groups, cost, params = layer("2*static/dim(6)+1*static/dim(4)", {0: (HALF, OPEN), 1: (CLOSED,)})
    plan, small = pruned(groups, cost, params)
    assert small["query"]["kernel"].shape == (DIM, 2, 6)


def test_spans_that_reach_everything_become_global():
    text = "4*adaptive(2,limit=20,loss=0.1)/entmax"
    groups, cost, params = layer(text, spans={0: (0.3, 0.55, 0.5, 1.2)})
    plan, small = pruned(groups, cost, params)
    assert [(part.heads, part.group.span.name) for part in plan.parts] == [
        ((0, 2), "adaptive"), ((1, 3), "global"),
    ]
    assert size(small) == size(params) - 2
    talking = layer("4*adaptive(2)/talking", spans={0: (0.3, 1, 1, 1)})
    plan, _ = pruned(*talking)
    assert [part.heads for part in plan.parts] == [(0, 1, 2, 3)]


def test_short_spans_are_ramped_and_equal_ones_a_group():
    x = np.random.default_rng(1).normal(size=(1, 48, DIM)).astype(np.float32)
    spans = {0: (0.0625, 0.0, 0.0625, 0.9)}
    groups, cost, params = layer("4*adaptive(1,limit=32,loss=1)/static", {0: (OPEN,) * 4}, spans, x)
    plan, _ = pruned(groups, cost, params, x)
    names = "2*ramped(2,ramp=1)/dim(4)+1*ramped(0,ramp=1)/dim(4)"
    assert plan.text == f"{names}+1*adaptive(ramp=1,limit=32,loss=1)/dim(4)"
    assert [part.heads for part in plan.parts] == [(0, 2), (1,), (3,)]
    params["group_0"]["span"][1] = 0.03
    plan, _ = pruned(groups, cost, params, x, exact=False, round_to=2)
    assert [part.heads for part in plan.parts] == [(0, 1, 2), (3,)]


def test_a_layer_whose_heads_are_all_closed_is_its_bias():
    groups, cost, params = layer("4*static", {0: (CLOSED,) * 4})
    plan, small = pruned(groups, cost, params)
    np.testing.assert_array_equal(
        output(tuple(part.group for part in plan.parts), small),
        np.broadcast_to(params["out"]["bias"], X.shape),
    )
    assert size(small) == head(1) + DIM
    assert np.abs(small["value"]["kernel"]).min() > 0  # the head can learn again


def test_closed_heads_are_gone():
    groups, cost, params = layer("4*static", {0: (OPEN, CLOSED, HALF, CLOSED)})
    plan, small = pruned(groups, cost, params)
    assert size(small) == 2 * head(4) + DIM
    assert plan.text == "2*global/dim(4)"


def test_gates_of_other_parameters_are_those_folded():
    groups, cost, params = layer("2*static", {0: (HALF, CLOSED)})
    plan = pruning.plan(groups, cost, params, DIM, TokenSequence(), FRAMES)
    raw = {**params, "group_0": {"gate": np.array([OPEN, OPEN], np.float32)}}
    small = pruning.apply(plan, raw)
    np.testing.assert_array_equal(small["out"]["kernel"], params["out"]["kernel"][:1])


def test_the_loss_on_the_cost_goes_with_all_that_it_could_change():
    cost = "cost(budget=0.25,weight=0.5)"
    plan, _ = pruned(*layer(f"4*static(0.1)+{cost}", {0: (OPEN, HALF, OPEN, OPEN)}))
    assert plan.cost is None
    groups = layer(f"2*static+2*dynamic(2)+{cost}", {0: (OPEN, CLOSED)})
    assert pruned(*groups)[0].text.endswith(f"+{cost}")


@pytest.mark.parametrize("text", [
    "2*global+6*fixed(16)/entmax15/static(0.01)",
    "1*adaptive(ramp=2.5,limit=0,init=-1,loss=1e-05)/alibi/dim(8,4)",
    "3*dynamic(1)/location(9)/element/talking/qk_norm+1*kernel/linear",
    "4*similarity/quasi/table+cost(budget=0.6,weight=0.1)",
])
def test_text_and_groups_are_inverse(text):
    groups, cost = parse_groups(text)
    assert parse_groups(format_groups(groups, cost)) == (groups, cost)
    assert format_groups((HeadGroup(2), HeadGroup(1, span=Fixed(3)))) == "2*global+1*fixed(3)"
    assert Global() == HeadGroup(2).span
