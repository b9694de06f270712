"""Gradients that explanations take, against finite differences and the model itself."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxcxr import models
from jaxcxr.models.layers.taps import FEATURES, PERTURBATIONS

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
