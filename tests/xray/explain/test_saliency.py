"""Maps against analytic models, axioms and what a module's own gradients say."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxcxr import models
from jaxcxr.errors import UserError
from jaxcxr.models.layers import tap
from jaxcxr.xray.explain import saliency

SIDE = 16


class Corner(nn.Module):
    """Class 0 is the mean of the upper left quarter, class 1 that of the lower right one."""

    def __call__(self, images):
        """Logits `[n, 2]`."""
        x = tap(self, "stage1", images)
        half = images.shape[1] // 2
        quarters = x[:, :half, :half], x[:, half:, half:]
        return jnp.stack([quarter.mean((1, 2, 3)) for quarter in quarters], 1)


class Model(nn.Module):
    """`Corner` in the form of the package's models."""

    def setup(self):
        self.backbone = Corner()

    def __call__(self, images, *, train=False):
        """Logits `[n, 2]`."""
        del train
        return self.backbone(images)


@pytest.fixture
def images():
    return jax.random.uniform(jax.random.key(3), (2, SIDE, SIDE, 1)) + 0.1


@pytest.mark.parametrize("method", ["integrated_gradients", "occlusion"])
def test_only_what_the_logit_is_made_of_counts(images, method):
    found = saliency.Explainer(Model(), {}, 0.0).maps(method, images, np.array([0, 1]))
    half = SIDE // 2
    edge = 0 if method == "integrated_gradients" else 2  # a window reaches over the border
    assert (np.abs(found[0])[half + edge :] < 1e-6).all()
    assert (np.abs(found[1])[: half - edge] < 1e-6).all()
    expected = np.asarray(images)[0, :half, :half, 0] / half**2
    if method == "integrated_gradients":
        np.testing.assert_allclose(found[0, :half, :half], expected, rtol=1e-5)


def test_occlusion_is_the_fall_of_the_logit(images):
    found = saliency.Explainer(Model(), {}, 0.0).maps("occlusion", images, np.array([0, 0]))
    # The corner pixel is hidden by the first window alone.
    hidden = np.array(images)
    hidden[:, :2, :2] = hidden.mean((1, 2, 3), keepdims=True)
    fall = Model().apply({}, images)[:, 0] - Model().apply({}, hidden)[:, 0]
    np.testing.assert_allclose(found[:, 0, 0], fall, rtol=1e-4, atol=1e-7)


@functools.cache
def trained(name):
    """A small model with weights under which nothing is constant."""
    options = {
        "resnet18": {"stem": "small", "width": 8, "head_width": 0},
        "vit_tiny": {"dim": 16, "depth": 2, "heads": 2, "patch": 4,
                     "attention": "mha|1*global+1*fixed(2)"},
    }[name]
    model = models.create(name, classes=3, **options)
    images = jax.random.normal(jax.random.key(1), (2, SIDE, SIDE, 1))
    variables = jax.jit(model.init)(jax.random.key(0), images)
    return saliency.Explainer(model, variables, -1.9), images


def test_each_model_has_its_methods():
    explainer, images = trained("resnet18")
    assert explainer.methods(images) == (
        "grad_cam", "score_cam", "integrated_gradients", "occlusion"
    )
    explainer, images = trained("vit_tiny")
    assert explainer.methods(images) == (
        "rollout", "attention_gradient", "integrated_gradients", "occlusion"
    )
    with pytest.raises(UserError, match="does not explain this model; methods: rollout"):
        explainer.maps("grad_cam", images, np.array([0, 0]))


@pytest.mark.parametrize("name", ["resnet18", "vit_tiny"])
def test_integrated_gradients_add_up_to_the_logit(name):
    explainer, images = trained(name)
    classes = jnp.array([0, 2])
    found = jax.jit(
        functools.partial(saliency.attributions, explainer._model, baseline=-1.9)
    )(explainer.variables, images, classes)
    start = explainer.logits(np.full((1, SIDE, SIDE, 1), -1.9, np.float32))[0]
    difference = explainer.logits(images)[[0, 1], classes] - start[np.array(classes)]
    np.testing.assert_allclose(found.sum((1, 2, 3)), difference, rtol=0.05, atol=0.02)


def test_grad_cam_is_cam_where_the_head_is_linear():
    """Zhou et al. 2016: the weights of the class, over the number of places."""
    explainer, images = trained("resnet18")
    classes = np.array([1, 2])
    found = saliency.grad_cam(
        explainer._model, explainer.variables, images, jnp.asarray(classes), stage="stage4"
    )
    _, given = explainer._model.apply(explainer.variables, images, mutable=["features"])
    (features,) = given["features"]["backbone"]["stage4"]
    kernel = explainer.variables["params"]["head"]["logits"]["kernel"]
    cam = jnp.einsum("nhwc,cn->nhw", features, kernel[:, classes]) / features[0, :, :, 0].size
    np.testing.assert_allclose(found, np.maximum(cam, 0), rtol=1e-4, atol=1e-7)


def test_the_map_of_features_is_the_last_fine_enough():
    explainer, images = trained("resnet18")
    assert explainer.stage(images) == ("stage2", (8, 8))  # of 16, 8, 4 and 2 cells a side
    large = jax.ShapeDtypeStruct((1, 64, 64, 1), jnp.float32)
    assert explainer.stage(large) == ("stage4", (8, 8))
    small = jax.ShapeDtypeStruct((1, 4, 4, 1), jnp.float32)
    assert explainer.stage(small) == ("stage1", (4, 4))


def test_score_cam_weighs_channels_by_what_they_leave(images):
    """The one channel is the image: what it leaves is the image times its own scaling."""
    found = saliency.Explainer(Model(), {}, 0.0).maps("score_cam", images, np.array([0, 1]))
    np.testing.assert_allclose(found, images[..., 0], rtol=1e-5)  # one channel weighs 1


def test_attention_maps_follow_the_gradient():
    explainer, images = trained("vit_tiny")
    one, other = (
        explainer.maps("attention_gradient", images, np.array([c, c])) for c in (0, 1)
    )
    assert one.shape == (2, SIDE, SIDE)
    assert (one >= 0).all()
    assert one.max() > 0
    assert np.abs(one - other).max() > 1e-6  # of a class
    rolled = [explainer.maps("rollout", images, np.array([c, c])) for c in (0, 1)]
    np.testing.assert_array_equal(*rolled)  # of none


def test_other_weights_give_other_maps_by_the_same_functions():
    explainer, images = trained("resnet18")
    classes = np.array([0, 0])
    before = explainer.maps("grad_cam", images, classes)
    doubled = jax.tree.map(lambda x: x, explainer.variables)
    doubled["params"]["head"]["logits"]["kernel"] *= 2
    after = explainer.with_variables(doubled).maps("grad_cam", images, classes)
    np.testing.assert_allclose(after, 2 * before, rtol=1e-4, atol=1e-7)
