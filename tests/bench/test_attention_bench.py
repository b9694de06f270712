"""The benchmark of attention: layers that are what they say, FLOPs against formulas, its tables."""

import argparse
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr.bench import attention_bench, attention_layers
from jaxcxr.bench.attention_layers import Tokens
from jaxcxr.commands import bench
from jaxcxr.plan import measuring

SMALL = Tokens(10, 16, 2)


def run(*words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    bench.run(parser.parse_args(["attention", *map(str, words)]))


def test_sizes_with_a_class_token_are_grids():
    assert Tokens(197, 8, 2).layout == {"grid": (14, 14), "global_tokens": 1}
    assert [Tokens(n, 8, 2).side for n in (1025, 4097, 81, 243, 1024, 1)] == [32, 64, 0, 0, 0, 0]


def test_the_layer_by_hand_is_that_of_flax():
    flax, ours = attention_layers.of_flax(SMALL), attention_layers.by_hand(SMALL)
    params, x = flax.values()
    pairs = {name: (p["kernel"], p["bias"]) for name, p in params.items()}
    np.testing.assert_allclose(ours.function(pairs, x), flax.function(params, x), atol=1e-6)


def test_training_returns_the_output_and_the_gradients_of_half_its_square():
    layer = attention_layers.by_hand(SMALL)
    args = layer.values()
    y, found = attention_layers.training(layer)(*args)
    np.testing.assert_allclose(y, layer.function(*args))
    expected = jax.grad(lambda *args: (layer.function(*args) ** 2).sum() / 2, (0, 1))(*args)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6),
                 found, expected)


def test_flops_by_hand_are_those_of_the_formula():
    n, d = 256, 32
    layer = attention_layers.by_hand(Tokens(n, d, 2))
    # 4 projections and 2 products with n x n weights; the softmax is the rest
    products = 8 * n * d**2 + 4 * n**2 * d
    found = measuring.compile_(layer.function, *layer.shapes).flops
    assert products < found < products + 2 * n**2 * 8


@pytest.mark.parametrize("kind", attention_bench.KINDS)
@pytest.mark.parametrize("count", [17, 20])
def test_every_kind_makes_a_layer_on_patches_and_on_frames(kind, count):
    layer = attention_bench._layer(kind, Tokens(count, 32, 8))
    assert jax.eval_shape(layer.function, *layer.shapes).shape == (1, count, 32)


def test_the_table_has_a_row_for_each_kind(capsys):
    run("--sizes", 10, "--kinds", "plain", "1*global+1*fixed(1)", "--dim", 16, "--heads", 2,
        "--seconds", 0, "--no-bars")
    text = capsys.readouterr().out
    assert "n = 10: a class token and 3 x 3 patches, width 16, 2 heads" in text
    rows = {line.split()[0]: re.findall(r"[\d.]+", line.partition("|")[2])
            for line in text.splitlines() if "|" in line}
    assert list(rows) == ["kind", "einsum", "flax", "plain", "1*global+1*fixed(1)"]
    assert rows["einsum"][1::4] == ["1.00", "1.00"]
    for name in ("flax", "plain"):
        assert [float(ratio) for ratio in rows[name][1::4]] == pytest.approx([1, 1], abs=0.1)


def test_a_window_has_fewer_flops_by_the_keys_that_it_meets():
    found = attention_bench.window(Tokens(256, 16, 2), 16, 0)
    # 256 keys, or a tile of 16 and 16 on either side
    for rounds, fewer in found.values():
        assert fewer == pytest.approx(256 / 48, rel=0.25)
        assert len(rounds) == 6
        assert set(rounds[0]) == {"window", "full"}


def test_plain_heads_are_measured_beside_both_others():
    found = attention_bench.plain(SMALL, 0)
    assert set(found) == {"forward", "training"}
    assert all(set(turn) == {"own", "einsum", "flax"} for turn in found["forward"][0])
    assert found["forward"][1] == found["training"][1] == {"own", "flax"}


def test_bars_say_whether_they_hold(monkeypatch, capsys):
    fast = [{"window": 1.0, "full": 9.0}] * 6
    even = [{"own": a, "einsum": 1.0, "flax": 0.5} for a in (0.9, 1.0, 1.0, 1.01, 1.1, 1.2)]
    monkeypatch.setattr(attention_bench, "window", lambda *_: {"forward": (fast, 14.0)})
    monkeypatch.setattr(attention_bench, "plain", lambda *_: {"forward": (even, {"own"})})
    attention_bench.bars([SMALL], 0)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("14.00 [14.00, 14.00] at least 15   DOES NOT HOLD")
    assert lines[1].endswith("9.00 [9.00, 9.00]   at least 8    holds")
    assert lines[2].endswith("[0.90, 1.20]   at most 1.05  too close to tell from so many rounds")
    assert lines[3].endswith("[1.80, 2.40]   at most 1     DOES NOT HOLD")
    assert len(lines) == 4
    monkeypatch.setattr(attention_bench, "plain", lambda *_: {"forward": (even, {"own", "flax"})})
    attention_bench.bars([SMALL], 0)
    assert capsys.readouterr().out.splitlines()[3].endswith("XLA makes the same program of both")


def test_frames_by_name():
    assert str(Tokens(81, 256, 8, 4)) == "n = 81: frames, width 256, 8 heads, batch 4"
    assert Tokens(81, 256, 8, 4).shape.shape == (4, 81, 256)
    assert attention_layers.library("2*global", SMALL).tokens.dtype == jnp.float32
