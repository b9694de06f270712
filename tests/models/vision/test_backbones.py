"""DINOv2, ConvNeXt and Swin: what timm computes, and what the package asks of a family."""

import pathlib

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from jaxcxr import config as config_lib
from jaxcxr import models
from jaxcxr.deploy.export import torch_weights
from jaxcxr.errors import UserError
from jaxcxr.models.weights import pretrained
from jaxcxr.train import optim
from jaxcxr.xray.explain import saliency
from tests.models.vision import small_backbones

GOLDEN = np.load(pathlib.Path(__file__).parents[2] / "golden" / "backbones.npz")
NAMES = tuple(small_backbones.SMALL)


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_those_of_timm(name):
    model, variables, images = small_backbones.make(name)
    expected = GOLDEN[name]
    assert np.abs(expected[0] - expected[1]).max() > 0.01
    found = jax.jit(model.apply)(variables, images)
    np.testing.assert_allclose(found, expected, atol=1e-4 * max(1, np.abs(expected).max()))


@pytest.mark.parametrize("name", NAMES)
def test_weights_come_back_through_names_of_timm(name, tmp_path):
    _, variables, _ = small_backbones.make(name)
    safetensors.numpy.save_file(torch_weights.state_dict(variables, name), tmp_path / "w")
    again = pretrained.load(tmp_path / "w", variables, name, skip_head=False)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_tiny"])
def test_stages_are_explained(name):
    options, size, _ = small_backbones.SMALL[name]
    model = models.create(name, classes=3, **options)
    gray = np.random.default_rng(1).normal(size=(2, size, size, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), gray)
    explainer = saliency.Explainer(model, variables, baseline=-2.0)
    assert {"grad_cam", "score_cam"} <= set(explainer.methods(gray))
    maps = explainer.maps("grad_cam", gray, np.array([0, 1]))
    assert maps.shape == (2, size, size)


def test_attention_of_tokens_is_explained():
    model, variables, images = small_backbones.make("dinov2_base")
    explainer = saliency.Explainer(model, variables, baseline=-2.0)
    assert "rollout" in explainer.methods(images)
    assert explainer.maps("rollout", images, np.array([0, 1])).shape == (2, 56, 56)


@pytest.mark.parametrize("name", NAMES)
def test_scales_biases_norms_and_positions_are_not_decayed(name):
    _, variables, _ = small_backbones.make(name)
    rules = config_lib.default_stage().optimizer.decay_rules
    factors = traverse_util.flatten_dict(optim.decay_factors(rules, variables["params"]), sep="/")
    decayed = {path.rpartition("/")[2] for path, factor in factors.items() if factor}
    assert decayed == {"kernel"}


@pytest.mark.parametrize("name", ["convnext_tiny", "swin_tiny"])
def test_remat_changes_nothing(name):
    options, _, _ = small_backbones.SMALL[name]
    model, variables, images = small_backbones.make(name)
    other = models.create(name, classes=3, remat="full", **options)
    loss = lambda model: jax.jit(jax.grad(  # noqa: E731
        lambda v: (model.apply(v, images, train=True) ** 2).sum()))(variables)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3),
                 loss(model), loss(other))


def test_a_swin_sees_across_windows_only_by_the_shift():
    """A change in one window reaches its neighbour in the second block, not in the first."""
    model = models.create("swin_tiny", dim=8, stages=(2,), heads=(2,), window=4)
    images = np.random.default_rng(0).normal(size=(1, 32, 32, 1)).astype(np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), images)
    changed = images.copy()
    changed[:, :4, :4] += 1

    def blocks(x):
        _, kept = model.apply(variables, x, capture_intermediates=True)
        kept = kept["intermediates"]["backbone"]
        return [kept[f"stages_0_blocks_{i}"]["__call__"][0] for i in (0, 1)]

    first, second = (np.abs(a - b).max(-1)[0]
                     for a, b in zip(blocks(images), blocks(changed), strict=True))
    assert first[:4, :4].max() > 0
    assert first[4:].max() == first[:, 4:].max() == 0
    assert second[4:6, :4].max() > 0
    assert second[6:].max() == 0


@pytest.mark.parametrize(
    ("name", "options", "size", "message"),
    [
        ("convnext_tiny", {"widths": (8, 16)}, 64, "differ in length"),
        ("convnext_tiny", {}, 16, "too small for the 4 stages"),
        ("swin_tiny", {"heads": (2, 4)}, 64, "differ in length"),
        ("swin_tiny", {}, 66, "not square with a side that 4 divides"),
        ("dinov2_small", {}, 64, "patches of 14"),
    ],
)
def test_what_does_not_fit_is_said(name, options, size, message):
    model = models.create(name, **options)
    with pytest.raises(UserError, match=message):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, size, size, 1), np.float32))
