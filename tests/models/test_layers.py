import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.test_util import check_grads
from scipy.special import ndtr

from jaxcxr import models
from jaxcxr.models import layers
from jaxcxr.models.layers import FEATURES, PERTURBATIONS
from jaxcxr.train import setup

X = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)


def test_gelu_is_x_times_the_normal_distribution():
    x = np.linspace(-9, 9, 2001)
    found = jax.jit(layers.gelu)(x.astype(np.float32))
    np.testing.assert_allclose(found, x * ndtr(x), atol=2e-6)
    half = jnp.asarray(x, jnp.bfloat16)
    wide = np.asarray(half, np.float64)
    got = np.asarray(jax.jit(layers.gelu)(half), np.float64)
    # The tail keeps its digits in bfloat16, which erf would round to 0 below -3.
    tail = (wide > -6) & (wide < -3)
    np.testing.assert_allclose(got[tail], (wide * ndtr(wide))[tail], rtol=0.05)


def test_layer_norm_and_its_gradient_are_flax_own():
    scale, bias = X[0, 0] + 1, X[0, 1]
    layer = nn.LayerNorm(epsilon=layers.EPSILON, use_fast_variance=False)

    def flax(x, scale, bias):
        return layer.apply({"params": {"scale": scale, "bias": bias}}, x)

    def both(function):
        out, pullback = jax.vjp(function, X, scale, bias)
        return out, *pullback(jnp.cos(out))

    for found, expected in zip(both(layers.layer_norm), both(flax), strict=True):
        np.testing.assert_allclose(found, expected, atol=2e-6)
    check_grads(layers.layer_norm, (X, scale, bias), 1, modes=["rev"], eps=1e-2, rtol=2e-2)


def chain(weights, x):
    for weight in weights:
        x = layers.kept(x + jnp.tanh(x @ weight))
    return jnp.sum(x * x)


@pytest.mark.parametrize("derivative", [jax.grad, functools.partial(jax.jacfwd, argnums=0)])
def test_what_is_kept_changes_no_number(derivative, monkeypatch):
    weights, x = [X[0, :, :3] / 3] * 2, X[:, :, 0]
    found = jax.jit(derivative(chain))(weights, x)
    monkeypatch.setattr(layers, "kept", lambda x: x)
    plain = jax.jit(derivative(lambda *args: chain(*args)))(weights, x)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), found, plain)


def test_the_step_keeps_barriers_that_others_lose():
    lowered = jax.jit(jax.grad(chain)).lower([X[0, :, :3]], X[:, :, 0])
    assert "opt-barrier" not in lowered.compile().as_text()
    assert "opt-barrier" in lowered.compile(setup._keep_barriers()).as_text()


def test_sinusoidal_is_the_formula_of_the_paper():
    codes = layers.sinusoidal(np.arange(7), 6)
    for position in range(7):
        for i in range(3):
            angle = position / 10000 ** (2 * i / 6)
            np.testing.assert_allclose(codes[position, 2 * i], np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(codes[position, 2 * i + 1], np.cos(angle), atol=1e-6)


def test_products_of_grid_codes_depend_on_the_offset_only():
    codes = layers.sinusoidal_2d(4, 5, 16).reshape(4, 5, 16)
    for rows, columns in ((0, 0), (1, 0), (0, 2), (2, 1)):
        a, b = codes[: 4 - rows, : 5 - columns], codes[rows:, columns:]
        products = (a * b).sum(-1)
        np.testing.assert_allclose(products, products[0, 0], atol=1e-4)
    assert len(np.unique(codes.reshape(20, 16).round(4), axis=0)) == 20


@pytest.mark.parametrize("length", [3, 6])
def test_learned_positions_serve_every_length_up_to_the_table(length):
    module = layers.TimePositions("learned", 6)
    table = np.random.default_rng(1).normal(size=(6, 8)).astype(np.float32)
    x = np.zeros((2, length, 8), np.float32)
    y = module.apply({"params": {"embedding": table}}, x)
    np.testing.assert_array_equal(y[1], table[:length])


SMALL = {
    "resnet18": {"stem": "small", "width": 8, "head_width": 0},
    "densenet121": {"stem": "small", "stages": (1, 2), "growth": 4, "width": 8, "head_width": 0},
    "vit_tiny": {"dim": 16, "depth": 2, "heads": 2, "patch": 4},
}
KINDS = ("mha", "1*global + 1*fixed(2)/element", "2*sparsemax/talking")


def made(name, **options):
    model = models.create(name, classes=3, **SMALL[name], **options)
    images = jax.random.normal(jax.random.key(1), (2, 16, 16, 1))
    variables = model.init(jax.random.key(0), images)
    assert set(variables) <= {"params", "batch_stats"}
    return model, variables, images


@pytest.mark.parametrize("name", ["resnet18", "densenet121"])
def test_a_marked_map_is_what_the_pool_averages(name):
    model, variables, images = made(name)
    logits, found = model.apply(variables, images, mutable=[FEATURES, PERTURBATIONS])
    np.testing.assert_array_equal(logits, model.apply(variables, images))
    maps = found[FEATURES]["backbone"]
    assert list(maps) == [f"stage{i}" for i in range(1, 1 + len(model.stages))]
    last = max(maps)
    (features,) = maps[last]
    dense = variables["params"]["head"]["logits"]
    expected = features.mean((1, 2)) @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)

    def score(perturbations):
        return model.apply({**variables, PERTURBATIONS: perturbations}, images)[:, 1].sum()

    # Through an average and a linear layer the gradient is the weight over the number of places.
    gradient = jax.grad(score)(found[PERTURBATIONS])["backbone"][last]
    places = features.shape[1] * features.shape[2]
    weight = jnp.broadcast_to(dense["kernel"][:, 1] / places, features.shape)
    np.testing.assert_allclose(gradient, weight, rtol=1e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_of_attention_weights_are_finite_differences(kind):
    model, variables, images = made("vit_tiny", attention=kind)
    logits, found = model.apply(variables, images, mutable=["attention", PERTURBATIONS])
    np.testing.assert_allclose(logits, model.apply(variables, images), atol=1e-6)

    def score(perturbations):
        given = {**variables, PERTURBATIONS: perturbations}
        return model.apply(given, images, mutable=["attention"])[0][:, 0].sum()

    zeros = jax.tree.map(jnp.zeros_like, found[PERTURBATIONS])
    gradient = jax.grad(score)(zeros)
    weights = found["attention"]["backbone"]["blocks_0"]["attention"]["weights"][0]
    heads = jax.tree.leaves(gradient["backbone"]["blocks_0"])
    assert sum(leaf.shape[1] for leaf in heads) == weights.shape[1]
    random = np.random.default_rng(0)
    direction = jax.tree.map(
        lambda leaf: random.normal(size=leaf.shape).astype(np.float32), gradient
    )

    def moved(step):
        return score(jax.tree.map(lambda d: step * d, direction))

    along = sum(jax.tree.leaves(jax.tree.map(lambda g, d: (g * d).sum(), gradient, direction)))
    assert abs(along) > 1e-4
    np.testing.assert_allclose((moved(1e-3) - moved(-1e-3)) / 2e-3, along, rtol=1e-2)
