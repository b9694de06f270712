import functools

import jax.numpy as jnp
import pytest

from jaxcxr.errors import UserError
from jaxcxr.models import attention
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.groups import PRESETS, Cost, HeadGroup, parse_groups, widths
from jaxcxr.models.attention.spans import Adaptive, Dynamic, Fixed

make = functools.partial(attention.factory, dropout=0.1, dtype=jnp.float32)


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("12*global", [HeadGroup(12)]),
        ("2*global+6*fixed(16)", [HeadGroup(2), HeadGroup(6, span=Fixed(16))]),
        ("4*qk_norm/global", [HeadGroup(4, qk_norm=True)]),
        (
            " 1 * entmax15/dim(64, 32)/static(0.01)/similarity + 2*talking/alibi ",
            [
                HeadGroup(1, 64, 32, "similarity", "entmax15", gate="static", gate_loss=0.01),
                HeadGroup(2, mix="talking", rel_bias="alibi"),
            ],
        ),
        (
            "1*adaptive(3,init=-1,loss=0.05)+1*dynamic(ramp=1)/location(81)",
            [
                HeadGroup(1, span=Adaptive(3, init=-1, loss=0.05)),
                HeadGroup(1, span=Dynamic(1), align="location", max_keys=81),
            ],
        ),
    ],
)
def test_groups_as_text(text, groups):
    assert parse_groups(text) == (tuple(groups), None)


def test_cost_as_text():
    assert parse_groups("4*global+cost(0.6,weight=2)") == ((HeadGroup(4),), Cost(0.6, 2))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("4*globl", "'globl' in the heads .* Did you mean 'global'"),
        ("global", "not a group of heads; write NUMBER"),
        ("x*global", "not a group of heads"),
        ("4*fixed", "missing a required argument: 'window'; its arguments: window"),
        ("4*fixed(w=3)", "its arguments: window"),
        ("4*fixed(3", "cannot be read"),
        ("4*fixed(1;2)", "neither a number nor a word"),
        ("4*fixed(3)/global", "name span twice"),
        ("4*qk_norm(1)", "takes no"),
        ("4*softmax(2)", "takes no arguments"),
        ("0*global", "count=0"),
        ("4*kernel", "go together"),
        ("4*linear", "go together"),
        ("4*location", "max_keys"),
        ("cost(1)", "has no heads"),
        ("4*global+cost(-1)", "budget=-1"),
        ("4*dim(0)", "head_dim=0"),
        ("4*static(-1)", "gate_loss=-1"),
    ],
)
def test_errors_in_text(text, message):
    with pytest.raises(UserError, match=message):
        parse_groups(text)


def test_widths_share_what_is_left():
    groups = (HeadGroup(1, 32), HeadGroup(2), HeadGroup(2, v_dim=8))
    assert widths(groups, 64) == ((32, 32), (8, 8), (8, 8))
    with pytest.raises(UserError, match="4 heads cannot share 31 of the width 63"):
        widths(groups, 63)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("heads", [1, 2, 6, 12])
def test_presets_have_as_many_heads_as_asked_for(name, heads):
    module = make(name, heads=heads)()
    assert isinstance(module, FlexibleHeadAttention)
    assert module.dropout == 0.1
    assert sum(group.count for group in module.groups) == heads


def test_presets_take_options():
    module = make("local_global(window=3, local=5)", heads=6)()
    assert module.groups == (HeadGroup(1), HeadGroup(5, span=Fixed(3)))
    gated = make("gated(token)", heads=2)()
    assert gated.groups == (HeadGroup(2, gate="token"),)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("local_globl(3)", "Did you mean 'local_global'"),
        ("local_global(widow=3)", "its arguments: window, local"),
        ("local_global(local=9)", "from 0 to 8"),
        ("7*global", "7 heads and the model heads=8"),
        ("mha8", "Did you mean 'mha'"),
        ("", "cannot be read"),
    ],
)
def test_errors_of_kinds(kind, message):
    with pytest.raises(UserError, match=message):
        make(kind, heads=8)
