"""Who computes plain heads, and that the call of jax's fused attention means the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import logging

from jaxcxr.models.attention import fused, weighing
from jaxcxr.models.attention.flexible import FlexibleHeadAttention
from jaxcxr.models.attention.groups import HeadGroup, parse_groups
from jaxcxr.models.attention.spans import Fixed

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
    found, why = fused.choose(**{**HOPPER, **change})
    assert found == who
    assert why


def test_plain_heads():
    assert fused.plain(HeadGroup(2, gate="token", qk_norm=True))
    assert fused.plain(HeadGroup(2, align="biased_general"))
    others = [
        HeadGroup(2, span=Fixed(3)), HeadGroup(2, norm="entmax15"), HeadGroup(2, mix="talking"),
        HeadGroup(2, rel_bias="alibi"), HeadGroup(2, align="additive"),
        HeadGroup(2, align="activated_general"),
    ]
    assert not any(fused.plain(group) for group in others)


@pytest.mark.parametrize("align", fused._BILINEAR)
def test_the_fused_call_means_the_same(align):
    rng = np.random.default_rng(0)
    query, key, value = (jnp.asarray(rng.normal(size=(2, n, 3, 8)), jnp.float32) for n in (5, 7, 7))
    params = {
        "log_scale": jnp.ones(3), "matrix": jnp.asarray(rng.normal(size=(3, 8, 8)), jnp.float32),
        "bias": jnp.asarray(rng.normal(size=(3, 8)), jnp.float32),
    }
    mask = jnp.asarray(rng.random((2, 1, 1, 7)) < 0.6).at[1].set(False)
    group = HeadGroup(3, align=align)
    found = fused.attend(group, params, query, key, value, mask, "xla")
    rule = weighing.Rule(group, None)
    expected = weighing.everything(rule, params, query, key, value, None, mask)
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_the_choice_is_said_once(monkeypatch):
    said = []
    monkeypatch.setattr(logging, "info", lambda text, *values: said.append(text % values))
    fused._say.cache_clear()
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

    monkeypatch.setattr(fused, "choose", lambda **_: ("cudnn", "a test"))
    monkeypatch.setattr(fused, "attend", attend)
    assert np.abs(module.apply(variables, x) - expected).max() > 1e-3
    assert len(calls) == 2
